// e^x - 1 and log x, sixteen or however many at a time.
#pragma once

#include "vector.h"

namespace gradex {
inline namespace GRADEX_ISA {

// sum_k coefficients[k] x^k
template <int N>
GRADEX_INLINE Vector horner(const float (&coefficients)[N], const Vector& x) {
  Vector sum = splat(coefficients[N - 1]);
  GRADEX_UNROLL(16) for (int k = N - 2; k >= 0; --k) sum = sum * x + coefficients[k];
  return sum;
}

// e^x - 1 = 2^n (e^r - 1) + (2^n - 1), |r| <= log(2) / 2: small where x is. For |x| < 80.
template <class Element>
GRADEX_INLINE Vector exp_minus_one(const Vector& x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction
  const Vector n = (x * 1.44269504f + kRound) - kRound;
  const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  const Vector power = bit_cast<Vector>((__builtin_convertvector(n, IntVector) + 127) << 23);
  const Vector tail = horner(Element::kExpTail, r);  // (e^r - 1 - r) / r^2
  return power * (tail * (r * r) + r) + (power - 1.0f);
}

// log(1 + m), sqrt(1/2) - 1 <= m <= sqrt(2) - 1. Coefficients of the Cephes library's logf.
GRADEX_INLINE Vector log_mantissa(const Vector& m) {
  constexpr float kTail[] = {3.3333331174e-1f,  -2.4999993993e-1f, 2.0000714765e-1f,
                             -1.6668057665e-1f, 1.4249322787e-1f,  -1.2420140846e-1f,
                             1.1676998740e-1f,  -1.1514610310e-1f, 7.0376836292e-2f};
  const Vector square = m * m;
  return horner(kTail, m) * (m * square) - 0.5f * square + m;
}

// log(1 + y), y > -1: small where y is; y itself where that is infinite or NaN.
GRADEX_INLINE Vector log_one_plus(const Vector& y) {
  const Vector x = 1.0f + y;
  const IntVector bits = bit_cast<IntVector>(x);
  const IntVector above = (bits & 0x007fffff) > 0x003504f3;  // mantissa over sqrt(2): -1 there
  const IntVector exponent = (bits >> 23) - 127 - above;
  const Vector m = bit_cast<Vector>(bits - (exponent << 23)) - 1.0f, e = __builtin_convertvector(exponent, Vector);
  const Vector log = log_mantissa(exponent == 0 ? y : m) - e * 2.12194440e-4f + e * 0.693359375f;
  return x <= 3.4e38f ? log : y;
}

struct SoftplusVector {
  Vector value;  // log(1 + e^u) = max(u, 0) + log(1 + e^-|u|)
  Vector slope;  // 1 / (1 + e^-u)
};

GRADEX_INLINE SoftplusVector softplus(const Vector& u) {
  const Vector zero{}, size = u < zero ? -u : u;
  const Vector e = 1.0f + exp_minus_one<Single>(size < 80.0f ? -size : splat(-80.0f));
  return {(u > zero ? u : zero) + log_one_plus(e), (u > zero ? splat(1.0f) : e) / (1.0f + e)};
}

// 1 / (1 + e^u), in double precision.
GRADEX_INLINE DoubleVector falling_sigmoid(const DoubleVector& u) {
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves the integer in the low bits
  constexpr double kFactorials[] = {
      1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
      1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1 / 3628800.0, 1 / 39916800.0, 1 / 479001600.0, 1 / 6227020800.0};
  const DoubleVector zero{}, one = 1.0 - zero, size = u < 0.0 ? -u : u, x = size < 700.0 ? -size : -700.0 - zero;
  const DoubleVector shifted = x * 1.4426950408889634 + kRound, n = shifted - kRound;
  const DoubleVector r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  DoubleVector e = kFactorials[13] - DoubleVector{};
  GRADEX_UNROLL(13) for (int k = 12; k >= 0; --k) e = e * r + kFactorials[k];
  e *= bit_cast<DoubleVector>((bit_cast<LongVector>(shifted) + 1023) << 52);  // e^-|u|
  return (u > 0.0 ? e : one) / (1.0 + e);
}

}  // namespace GRADEX_ISA
}  // namespace gradex
