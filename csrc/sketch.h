// The sketch of per-sample gradients of one linear layer:
//     out[i, k] += scale * sum_{o, c} G_i[o, c] P[offset + o p + c, k],
//     G_i = sum_{t < lengths[i]} D[i, t, :]^T X[i, t, :].
// Neither G nor P is ever in memory beyond one tile.
#pragma once
#include <cstdint>

#include "distribution.h"
#include "dtype.h"

namespace gradex {

// Whose sketch, and by which P.
struct SketchPlan {
  float* out;        // [samples, dim], added to
  float* workspace;  // sketch_*_workspace(...) floats, owned by the caller
  int64_t samples, dim;
  uint64_t key;  // Philox key of the parameter
  float scale;
  Distribution distribution;
};

struct SketchArguments {
  SketchPlan plan;
  const void* inputs;      // X [samples, tokens, in_features]
  const void* grads;       // D [samples, tokens, out_features]
  const int64_t* lengths;  // [samples] or nullptr (all tokens)
  int64_t tokens, in_features, out_features;
  uint64_t offset;  // element index of the parameter's first entry
  DType inputs_type, grads_type;
};

// A parameter that is looked up by rows, such as an embedding: G_i[row, :] = sum of values[i, t, :] over the tokens t
// that looked it up.
struct RowSketchArguments {
  SketchPlan plan;
  const void* values;    // [samples, tokens, width]
  const int64_t* row;    // [rows] ascending: those that were looked up at all
  const int64_t* start;  // [rows + 1]: row r's tokens are token[start[r]] ... token[start[r + 1] - 1]
  const int64_t* token;  // sample * tokens + t, ascending for every row
  int64_t tokens, width, rows;
  DType values_type;
};

int64_t sketch_cpu_workspace(const SketchPlan& plan, int64_t out_features, int64_t in_features);
void sketch_cpu(const SketchArguments& arguments, int workers);
void sketch_rows_cpu(const RowSketchArguments& arguments, int workers);

// Floats, of the GPU's kernels.
int64_t sketch_device_workspace(const SketchPlan& plan, int64_t out_features, int64_t in_features);
int64_t sketch_rows_device_workspace(const SketchPlan& plan, int64_t rows, int64_t width);

// Enqueued on `stream` (a cudaStream_t) of `device`; throws std::runtime_error on a CUDA error.
void sketch_cuda(const SketchArguments& arguments, int device, void* stream);
void sketch_rows_cuda(const RowSketchArguments& arguments, int device, void* stream);

// The same kernels on the host, a lane after another.
void sketch_lanes(const SketchArguments& arguments);
void sketch_rows_lanes(const RowSketchArguments& arguments);

}  // namespace gradex
