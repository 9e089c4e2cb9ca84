// The sketches and their adjoint, on the CPU and by the GPU's kernels.
#pragma once
#include <cstdint>

#include "lift.h"
#include "sanitize.h"
#include "sketch.h"

namespace {

struct SketchShape {
  int64_t samples, tokens, in_features, out_features, dim;
};

// Any number, and two from [0.5, 1).
float some(float) { return static_cast<float>(normal()); }
BFloat16 some(BFloat16) { return {static_cast<uint16_t>(0x3F00u | (generator() & 0x7Fu))}; }
Float16 some(Float16) { return {static_cast<uint16_t>(0x3800u | (generator() & 0x3FFu))}; }

template <class Element>
Exact<Element> draw(int64_t count) {
  Exact<Element> array(count);
  for (int64_t i = 0; i < count; ++i) array[i] = some(Element{});
  return array;
}

constexpr int kLaneByLane = 0;  // workers: the GPU's kernels

// The arrays are made here, and kept by the caller.
SketchPlan make_plan(Exact<float>* result, Exact<float>* workspace, int64_t samples, int64_t dim, int64_t out,
                     int64_t in, const decltype(sketch_cpu_workspace)& size) {
  const auto distribution = samples % 2 ? Distribution::kGaussian : Distribution::kRademacher;
  SketchPlan plan{result->data(), nullptr, samples, dim, 0x123456789ABCDEFu, 0.1f, distribution};
  *workspace = Exact<float>(size(plan, out, in), static_cast<float>(kNaN));
  plan.workspace = workspace->data();
  return plan;
}

// Every token looks up one of some rows that are far apart, or none.
template <class Value>
void check_row_sketch(const SketchShape& shape, DType type) {
  const auto [samples, tokens, width, rows, dim] = shape;
  const Exact<Value> values = draw<Value>(samples * tokens * width);
  Exact<int64_t> row(rows), start(rows + 1), token(samples * tokens);
  int64_t used = 0;
  for (int64_t r = 0; r < rows; ++r) {
    row[r] = r * 100'000'000;
    for (int64_t i = 0; i < token.size(); ++i)
      if (i * 7 % (rows + 1) == r) token[used++] = i;
    start[r + 1] = used;
  }
  const auto sketch = [&](int workers) {
    Exact<float> result(samples * dim), workspace;
    const auto& size = workers == kLaneByLane ? sketch_rows_device_workspace : sketch_cpu_workspace;
    const SketchPlan plan = make_plan(&result, &workspace, samples, dim, rows, width, size);
    const RowSketchArguments a{plan, values.data(), row.data(), start.data(), token.data(), tokens, width, rows, type};
    workers == kLaneByLane ? sketch_rows_lanes(a) : sketch_rows_cpu(a, workers);
    return result;
  };
  const Exact<float> one = sketch(1);
  if (width < 100) check(close(one, sketch(kLaneByLane)), "the same row sketch lane by lane");
  check(same_bits(one, sketch(3)), "the same row sketch for any number of threads");
  check(all_finite(one), "row sketches are finite");
}

template <class Input, class Grad>
void check_sketch(const SketchShape& shape, DType inputs_type, DType grads_type) {
  const auto [samples, tokens, in, out, dim] = shape;
  const Exact<Input> inputs = draw<Input>(samples * tokens * in);
  const Exact<Grad> grads = draw<Grad>(samples * tokens * out);
  Exact<int64_t> lengths(inputs_type == grads_type ? 0 : samples);
  for (int64_t i = 0; i < lengths.size(); ++i) lengths[i] = i * tokens / samples;
  const auto sketch = [&](int workers) {
    Exact<float> result(samples * dim), workspace;
    const auto& size = workers == kLaneByLane ? sketch_device_workspace : sketch_cpu_workspace;
    const SketchPlan plan = make_plan(&result, &workspace, samples, dim, out, in, size);
    const SketchArguments a{plan,         inputs.data(),
                            grads.data(), lengths.size() ? lengths.data() : nullptr,
                            tokens,       in,
                            out,          (uint64_t{1} << 32) - 5,
                            inputs_type,  grads_type};
    workers == kLaneByLane ? sketch_lanes(a) : sketch_cpu(a, workers);
    return result;
  };
  const Exact<float> one = sketch(1);
  if (in * out < 1000 && dim < 100) check(close(one, sketch(kLaneByLane)), "the same sketch lane by lane");  // is slow
  check(same_bits(one, sketch(3)), "the same sketch for any number of threads");
  check(all_finite(one), "sketches are finite");
}

void check_lift(int64_t vectors, int64_t size, int64_t dim) {
  const Exact<float> weights = draw<float>(vectors * dim, normal);
  const auto lift = [&](int workers) {
    Exact<float> result(vectors * size, static_cast<float>(kNaN));
    const auto distribution = dim % 2 ? Distribution::kGaussian : Distribution::kRademacher;
    const LiftArguments a{result.data(),           weights.data(), vectors,     size, dim, 7,
                          (uint64_t{1} << 32) - 5, 0.1f,           distribution};
    workers == kLaneByLane ? lift_lanes(a) : lift_cpu(a, workers);
    return result;
  };
  const Exact<float> one = lift(1);
  check(close(one, lift(kLaneByLane)), "the same lift lane by lane");
  check(same_bits(one, lift(3)), "the same lift for any number of threads");
  check(all_finite(one), "lifts are finite");
}

void check_sketches() {
  constexpr DType kTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
  for (const SketchShape& shape :
       {SketchShape{1, 1, 1, 1, 1}, SketchShape{5, 3, 7, 9, 33}, SketchShape{4, 2, 64, 64, 32},
        SketchShape{3, 5, 300, 1, 70}, SketchShape{2, 4, 1, 300, 5}, SketchShape{2, 40, 17, 5, 130}}) {
    for (DType inputs : kTypes) {
      dispatch(inputs, [&](auto input) {
        check_row_sketch<decltype(input)>(shape, inputs);
        for (DType grads : kTypes)
          dispatch(grads, [&](auto grad) { check_sketch<decltype(input), decltype(grad)>(shape, inputs, grads); });
      });
    }
  }
  for (int64_t samples : {9, 34})  // large tiles, whose gradients are made a few samples at a time
    check_sketch<float, float>({samples, 33, 515, 520, 4}, DType::kFloat32, DType::kFloat32);
  for (int64_t size : {1, 511, 512, 513, 1500})
    for (int64_t dim : {1, 31, 33}) check_lift(dim % 4 + 1, size, dim);
}

}  // namespace
