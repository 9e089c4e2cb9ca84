// The same bits as another type.
#pragma once
#include <cstring>

#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

template <class To, class From>
GRADEX_INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
