// Two vectors as one number of gaussian.h: their operations take turns, so that neither waits for its own last one.
#pragma once

#include <cstdint>

#include "gaussian.h"
#include "vector.h"

namespace gradex {
inline namespace GRADEX_ISA {

template <class V>
struct Two {
  V a, b;
};

#define GRADEX_TWO(op)                                                 \
  template <class V>                                                   \
  GRADEX_INLINE Two<V> operator op(const Two<V>& x, const Two<V>& y) { \
    return {x.a op y.a, x.b op y.b};                                   \
  }                                                                    \
  template <class V, class Number>                                     \
  GRADEX_INLINE Two<V> operator op(const Two<V>& x, Number y) {        \
    return {x.a op y, x.b op y};                                       \
  }
GRADEX_TWO(+)
GRADEX_TWO(-)
GRADEX_TWO(*)
GRADEX_TWO(&)
GRADEX_TWO(^)
GRADEX_TWO(<<)
GRADEX_TWO(>>)
#undef GRADEX_TWO

template <class V, class Number>
GRADEX_INLINE Two<V> operator-(Number x, const Two<V>& y) {
  return {x - y.a, x - y.b};
}

GRADEX_INLINE Two<Vector> to_float(const Two<IntVector>& x) { return {to_float(x.a), to_float(x.b)}; }

GRADEX_INLINE Two<Vector> square_root(const Two<Vector>& x) { return {square_root(x.a), square_root(x.b)}; }

GRADEX_INLINE Two<Vector> fused(const Two<Vector>& x, const Two<Vector>& y, const Two<Vector>& z) {
  return {fused(x.a, y.a, z.a), fused(x.b, y.b, z.b)};
}

template <>
GRADEX_INLINE Two<Vector> every<Two<Vector>>(float value) {
  return {splat(value), splat(value)};
}

template <>
struct Beside<Two<WordVector>> {
  using Float = Two<Vector>;
  using Signed = Two<IntVector>;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
