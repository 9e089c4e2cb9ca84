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

// log x for normal x > 0; x itself where that is infinite or NaN. Coefficients of the Cephes library's logf.
GRADEX_INLINE Vector log_positive(const Vector& x) {
  const IntVector bits = bit_cast<IntVector>(x);
  const IntVector above = (bits & 0x007fffff) > 0x003504f3;  // mantissa over sqrt(2): -1 there
  const IntVector exponent = (bits >> 23) - 127 - above;
  const Vector m = bit_cast<Vector>(bits - (exponent << 23)) - 1.0f;  // sqrt(1/2) - 1 ... sqrt(2) - 1
  constexpr float kTail[] = {3.3333331174e-1f,  -2.4999993993e-1f, 2.0000714765e-1f,
                             -1.6668057665e-1f, 1.4249322787e-1f,  -1.2420140846e-1f,
                             1.1676998740e-1f,  -1.1514610310e-1f, 7.0376836292e-2f};
  const Vector e = __builtin_convertvector(exponent, Vector), square = m * m;
  const Vector log = (horner(kTail, m) * (m * square) - e * 2.12194440e-4f - 0.5f * square + m) + e * 0.693359375f;
  return x <= 3.4e38f ? log : x;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
