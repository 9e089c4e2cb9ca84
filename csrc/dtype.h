// Element types of inputs and output gradients, and the one dispatch over them.
#pragma once
#include <cstdint>

#include "bits.h"
#include "target.h"

namespace gradex {

enum class DType : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

inline namespace GRADEX_ISA {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

GRADEX_INLINE float to_float(float value) { return value; }

GRADEX_INLINE float to_float(BFloat16 value) { return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }

// 2^112 moves the exponent bias from 15 to 127 and makes subnormals normal; the second branch keeps infinity and NaN.
GRADEX_INLINE float to_float(Float16 value) {
  const uint32_t magnitude = value.bits & 0x7FFFu, sign = (value.bits & 0x8000u) << 16;
  const uint32_t finite = [&] {
    const float scaled = bit_cast<float>(magnitude << 13) * 0x1p112f;
    return bit_cast<uint32_t>(scaled);
  }();
  return bit_cast<float>(sign | (magnitude >= 0x7C00u ? (magnitude << 13) | 0x7F800000u : finite));
}

GRADEX_INLINE float number_of(const void* numbers, DType type, int64_t index) {
  if (type == DType::kFloat32) return static_cast<const float*>(numbers)[index];
  if (type == DType::kFloat16) return to_float(static_cast<const Float16*>(numbers)[index]);
  return to_float(static_cast<const BFloat16*>(numbers)[index]);
}

// body(element) with a value of the C++ type that `dtype` names.
template <class Body>
inline void dispatch(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat32: return body(float{});
    case DType::kBFloat16: return body(BFloat16{});
    case DType::kFloat16: return body(Float16{});
  }
}

}  // namespace GRADEX_ISA
}  // namespace gradex
