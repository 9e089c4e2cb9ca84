// The adjoint of the sketch: out[m, j] = scale * sum_k weights[m, k] P[offset + j, k].
#pragma once
#include <cstdint>

#include "distribution.h"

namespace gradex {

struct LiftArguments {
  float* out;            // [vectors, size], overwritten
  const float* weights;  // [vectors, dim]
  int64_t vectors, size, dim;
  uint64_t key, offset;
  float scale;
  Distribution distribution;
};

void lift_cpu(const LiftArguments& arguments, int workers);

// Enqueued on `stream` (a cudaStream_t) of `device`; throws std::runtime_error on a CUDA error.
void lift_cuda(const LiftArguments& arguments, int device, void* stream);

// The same kernel on the host.
void lift_lanes(const LiftArguments& arguments);

}  // namespace gradex
