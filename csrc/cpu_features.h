// The vector instructions that this x86 processor has and its operating system lets run. By the processor itself and
// not by __builtin_cpu_supports: some runtimes (zig's) link that and answer no to everything.
#pragma once
#include <cpuid.h>

#include <cstdint>

namespace gradex {

struct CpuFeatures {
  bool avx2, avx512, avx512bf16;  // with FMA; with F, DQ, BW and VL
};

// XCR0: the registers that the system keeps for a thread when another has its turn. Needs OSXSAVE.
inline uint32_t kept_registers() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

inline CpuFeatures cpu_features() {
  constexpr uint32_t kYmm = 0x06, kZmm = 0xE6;
  constexpr uint32_t kAvx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
  uint32_t eax, ebx, ecx, edx;
  CpuFeatures found{};
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) return found;
  const uint32_t kept = kept_registers();
  const bool fma = (ecx & bit_AVX) && (ecx & bit_FMA) && (kept & kYmm) == kYmm;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return found;
  found.avx2 = fma && (ebx & bit_AVX2);
  found.avx512 = found.avx2 && (kept & kZmm) == kZmm && (ebx & kAvx512) == kAvx512;
  const bool more = eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx);
  found.avx512bf16 = found.avx512 && more && (eax & bit_AVX512BF16);
  return found;
}

}  // namespace gradex
