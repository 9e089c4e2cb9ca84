// The validation rows around one point: their mean loss and its slope there, and its change a short way off.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "array.h"
#include "block_pass.h"
#include "logistic.h"
#include "packed_rows.h"
#include "solve.h"
#include "vector_functions.h"

namespace gradex {
inline namespace GRADEX_ISA {

class Validation {
 public:
  Validation(const ValidationData& data, int64_t dim, int threads)
      : data_(data),
        dim_(dim),
        end_{0, data.rows},
        rows_({data.features, nullptr, nullptr, end_, data.rows, dim, 1}, threads) {
    p_.resize(static_cast<size_t>(rows_.packed_rows()));
  }

  // mean_v softplus(-(h_v + g_v . x))
  double loss(const double* x) const {
    double sum = 0.0;
    for (int64_t v = 0; v < data_.rows; ++v) sum += softplus(-margin(v, x)).value;
    return sum / static_cast<double>(data_.rows);
  }

  // Expands around x; slope [dim] is the gradient of the mean loss.
  void move_to(const double* x, double* slope) {
    std::fill_n(slope, dim_, 0.0);
    for (const PackedBlock* block = rows_.begin(0); block < rows_.end(0); ++block) {
      for (int64_t i = 0; i < block->rows; ++i) {
        const double p = sigmoid(-margin(block->first + i, x));
        p_[block->packed + i] = static_cast<float>(p);
        add_row(slope, -p / static_cast<double>(data_.rows), row(block->first + i), dim_);
      }
    }
  }

  // changes[c] of the mean loss at the shifts[c] [dim] from there: mean_v log(1 + p_v (e^D_v - 1)), D_v = -g_v . shift;
  // NaN where a |D_v| is too large for float32.
  void changes(double (&changes)[kTileColumns], const float* const* shifts) const {
    constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
    std::fill_n(changes, kTileColumns, 0.0);
    const int64_t stride = dim_ * kVectorLanes;
    Array<float> scratch;
    for (const PackedBlock* block = rows_.begin(0); block < rows_.end(0); ++block) {
      const BlockWords<Single> words = rows_.words(*block, &scratch);
      for_vector_tiles(block->vectors, [&](auto vectors, int64_t) {
        Vector moved[vectors][kTileColumns], total[kTileColumns] = {};
        tile_product<Single, vectors>(moved, words.by_row, stride, kVectorLanes, shifts, dim_);
        for (int v = 0; v < vectors; ++v) {
          const Vector p = load(p_.data() + block->packed + v * kVectorLanes);  // 0 beyond the last row
          for (int c = 0; c < kTileColumns; ++c) {
            const Vector change = -moved[v][c], size = change < 0.0f ? -change : change;
            total[c] += log_one_plus(p * exp_minus_one<Single>(size < kLargestChange ? change : splat(kNaN)));
          }
        }
        for (int c = 0; c < kTileColumns; ++c)
          for (int64_t lane = 0; lane < kVectorLanes; ++lane) changes[c] += static_cast<double>(total[c][lane]);
      });
    }
    for (double& change : changes) change /= static_cast<double>(data_.rows);
  }

 private:
  const float* row(int64_t v) const { return data_.features + v * dim_; }
  double margin(int64_t v, const double* x) const { return data_.margins[v] + dot_row(row(v), x, dim_); }

  ValidationData data_;
  int64_t dim_, end_[2];
  PackedRows<Single> rows_;
  Array<float> p_;  // [packed rows], sigmoid(-z)
};

}  // namespace GRADEX_ISA
}  // namespace gradex
