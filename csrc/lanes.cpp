// The GPU's kernels on the host, a lane after another: their own source, tilings and indices, for machines without a
// GPU to test. Slow.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "device_sketch.h"
#include "lane_lift.h"

namespace gradex {
namespace {

template <class Number, class S, class Sketch>
void run_blocks(const Sketch& sketch) {
  const SketchPlan& plan = sketch.plan;
  std::fill_n(plan.workspace, sketch.tiling.workspace(plan), 0.0f);
  const auto samples = static_cast<int>(std::min<int64_t>(plan.samples, S::kSamples));
  const Gradients shape(nullptr, samples, sketch.tiling.elements());
  std::vector<uint32_t> memory(static_cast<size_t>(shape.words()), ~0u);  // NaN until written
  for (int64_t chunk = 0; chunk < sketch.tiling.chunks; ++chunk) sketch_block<Number, S>(sketch, chunk, memory.data());
  double sums[kWarps * kLanes];
  for (int64_t i = 0; i < plan.samples * plan.dim; i += kLanes) add_chunks(plan, sketch.tiling, i, sums);
}

}  // namespace

int64_t sketch_device_workspace(const SketchPlan& plan, int64_t out_features, int64_t in_features) {
  int64_t floats = 0;
  const int64_t left = std::min(out_features, in_features), right = std::max(out_features, in_features);
  dispatch_shape(plan, left, right,
                 [&](auto shape) { floats = BlockTiling::of(shape, left, right, plan.dim).workspace(plan); });
  return floats;
}

int64_t sketch_rows_device_workspace(const SketchPlan& plan, int64_t rows, int64_t width) {
  return BlockTiling::of(Lines{}, rows, width, plan.dim, 1).workspace(plan);
}

void sketch_lanes(const SketchArguments& a) {
  dispatch_layer(
      a, [](const auto& sketch, auto shape, auto number) { run_blocks<decltype(number), decltype(shape)>(sketch); });
}

void sketch_rows_lanes(const RowSketchArguments& a) { run_blocks<float, Lines>(line_sketch(a)); }

void lift_lanes(const LiftArguments& a) {
  for (int64_t first = 0; first < a.vectors; first += kVectors)
    for (int64_t index = 0; index < a.size; ++index) lift_element(a, index, first);
}

}  // namespace gradex
