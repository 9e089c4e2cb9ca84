// std::vector, but aligned for vector loads, and one of its own for each instruction set.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

// A std::vector<double> that was compiled for AVX-512 could be the linker's choice for all: it would stop an older
// machine. An allocator in this namespace makes every copy another type.
template <class T>
struct Allocator {
  using value_type = T;
  static constexpr std::align_val_t kAlignment{64};

  Allocator() = default;
  template <class Other>
  Allocator(const Allocator<Other>&) {}

  T* allocate(std::size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), kAlignment)); }
  void deallocate(T* array, std::size_t) { ::operator delete(array, kAlignment); }
  bool operator==(const Allocator&) const { return true; }
  bool operator!=(const Allocator&) const { return false; }
};

template <class T>
using Array = std::vector<T, Allocator<T>>;

}  // namespace GRADEX_ISA
}  // namespace gradex
