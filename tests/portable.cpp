// Checksums of P's bits, a line for a distribution: the same of every instruction set, processor and compiler.
#include <cstdint>
#include <cstring>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "instruction_set.h"
#include "lift.h"

using namespace gradex;

namespace {

constexpr int64_t kDim = 41, kSize = 3001;

// FNV-1a of P[2^32 - 5 ... + kSize, 0 ... kDim), as the lift of the unit vectors gives it.
uint64_t checksum(Distribution distribution) {
  std::vector<float> unit(kDim * kDim), p(kDim * kSize);
  for (int64_t k = 0; k < kDim; ++k) unit[static_cast<size_t>(k * kDim + k)] = 1.0f;
  const uint64_t key = 0x123456789ABCDEFu, offset = (uint64_t{1} << 32) - 5;
  lift_cpu({p.data(), unit.data(), kDim, kSize, kDim, key, offset, 1.0f, distribution}, 1);
  uint64_t sum = 0xCBF29CE484222325u;
  for (const float& entry : p) {
    uint32_t bits;
    std::memcpy(&bits, &entry, sizeof(bits));
    sum = (sum ^ bits) * 0x100000001B3u;
  }
  return sum;
}

}  // namespace

int main() {
  const std::pair<const char*, Distribution> kinds[] = {{"gaussian", Distribution::kGaussian},
                                                        {"rademacher", Distribution::kRademacher}};
  for (const auto& [kind, distribution] : kinds) {
    const std::vector<std::string> names = instruction_sets();
    use_instruction_set(names.front());
    const uint64_t first = checksum(distribution);
    for (const std::string& name : names) {
      use_instruction_set(name);
      if (checksum(distribution) == first) continue;
      std::cerr << kind << " differs between " << names.front() << " and " << name << std::endl;
      return 1;
    }
    std::cout << kind << ' ' << std::hex << first << std::endl;
  }
}
