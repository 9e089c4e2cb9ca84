// What the sanitizers' programs share: counted checks, arrays without slack, random numbers.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace gradex;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::string place;  // what runs
int64_t checks = 0, failures = 0;

void check(bool holds, const char* what) {
  ++checks;
  if (holds) return;
  ++failures;
  std::cerr << "FAILED at " << place << ": " << what << std::endl;
}

std::mt19937_64 generator;

double normal() { return std::normal_distribution<double>()(generator); }
bool chance(double probability) { return std::bernoulli_distribution(probability)(generator); }

// A caller's array: it ends where its memory does, and is aligned as T needs and no better.
template <class T>
class Exact {
 public:
  explicit Exact(int64_t count = 0, T value = T{}) : block_(static_cast<size_t>(count + 1), value) {}

  T* data() { return block_.data() + 1; }
  const T* data() const { return block_.data() + 1; }
  int64_t size() const { return static_cast<int64_t>(block_.size()) - 1; }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size(); }

 private:
  std::vector<T> block_;
};

template <class T>
Exact<T> draw(int64_t count, const std::function<double()>& one) {
  Exact<T> array(count);
  for (int64_t i = 0; i < count; ++i) array[i] = static_cast<T>(one());
  return array;
}

template <class T>
bool same_bits(const Exact<T>& a, const Exact<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), static_cast<size_t>(a.size()) * sizeof(T)) == 0;
}

template <class T>
bool all_finite(const Exact<T>& values) {
  return std::all_of(values.begin(), values.end(), [](T value) { return std::isfinite(value); });
}

// Equal but for roundings, of numbers that bfloat16 parts keep to 16 bits.
bool close(const Exact<float>& a, const Exact<float>& b) {
  double difference = 0.0, size = 0.0;
  for (int64_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return a.size() == b.size() && difference <= 1e-8 * size;
}

}  // namespace
