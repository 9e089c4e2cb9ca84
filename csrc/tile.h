// A tile of P on the CPU: some elements j, the lanes, and four columns at a time.
#pragma once

#include <cstdint>

#include "distribution.h"
#include "normals.h"

namespace gradex {
inline namespace GRADEX_ISA {

constexpr int64_t kTileLanes = 512;  // 8 KiB of four columns, and 8 KiB of what is known of the elements: the L1 cache
constexpr int64_t kTileQuad = 4;

// Up to whole pairs of vectors.
inline int64_t whole_lanes(int64_t lanes) {
  constexpr int64_t kPair = 2 * kVectorLanes;
  return (lanes + kPair - 1) / kPair * kPair;
}

class ProjectionTile {
 public:
  ProjectionTile(Distribution distribution, uint64_t key) : distribution_(distribution), key_(key), keys_(key) {}

  // j [lanes] ascending; lanes <= kTileLanes, made up to pairs of vectors by elements whose gradient the caller has as
  // 0.
  void place(const uint64_t* j, int64_t lanes) {
    lanes_ = whole_lanes(lanes);
    high_ = static_cast<uint32_t>(j[0] >> 32);
    split_ = j[lanes - 1] >> 32 != high_;
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      j_[lane] = j[lane < lanes ? lane : lanes - 1];
      const int64_t at = lane / kVectorLanes * kVectorLanes + lane % 2 * kDoubleLanes + lane % kVectorLanes / 2;
      const ElementRounds rounds(static_cast<uint32_t>(j_[lane]), tag(), keys_);
      product_[at] = rounds.product;
      word_[at] = rounds.word;
    }
    words_of_ = -1;
  }

  int64_t lanes() const { return lanes_; }

  // [4, kTileLanes]: the columns 4 quad ... 4 quad + 3.
  const float* columns(int64_t quad) {
    if (distribution_ == Distribution::kRademacher) {
      signs(quad);
    } else if (split_) {
      normals_one_by_one(quad);
    } else {
      normals(quad);
    }
    return entries_;
  }

 private:
  uint32_t tag() const { return distribution_ == Distribution::kRademacher ? kRademacherTag : kGaussianTag; }

  void normals(int64_t quad) {
    const ColumnRounds column(static_cast<uint32_t>(quad), high_, keys_);
    for (int64_t lane = 0; lane < lanes_; lane += 2 * kVectorLanes) {
      Two<WordVector> words[4];
      philox_vectors(words, product_ + lane, word_ + lane, column, keys_);
      Two<Vector> z[4];
      box_muller(words[0], words[1], &z[0], &z[1]);
      box_muller(words[2], words[3], &z[2], &z[3]);
      for (int64_t i = 0; i < 4; ++i) {
        store(entries_ + i * kTileLanes + lane, z[i].a);
        store(entries_ + i * kTileLanes + lane + kVectorLanes, z[i].b);
      }
    }
  }

  // Where j's high word is not the same for all.
  void normals_one_by_one(int64_t quad) {
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      const Normals found = entries(distribution_, j_[lane], static_cast<uint32_t>(quad), key_);
      for (int64_t i = 0; i < 4; ++i) entries_[i * kTileLanes + lane] = found.z[i];
    }
  }

  // One call of Philox has the signs of 128 columns.
  void signs(int64_t quad) {
    if (quad / 32 != words_of_) draw_signs(words_of_ = quad / 32);
    const int64_t column = quad % 32 * 4;
    const uint32_t* words = signs_ + column / 32 * kTileLanes;
    for (int64_t i = 0; i < 4; ++i) {
      const auto shift = static_cast<uint32_t>(31 - (column + i) % 32);
      for (int64_t lane = 0; lane < lanes_; lane += kVectorLanes) {
        const WordVector sign = (load<WordVector>(words + lane) << shift) & 0x80000000u;
        store(entries_ + i * kTileLanes + lane, bit_cast<Vector>(sign | 0x3F800000u));
      }
    }
  }

  void draw_signs(int64_t block) {
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      const Words words = rademacher_words(j_[lane], static_cast<uint32_t>(block), key_);
      signs_[lane] = words.x;
      signs_[lane + kTileLanes] = words.y;
      signs_[lane + 2 * kTileLanes] = words.z;
      signs_[lane + 3 * kTileLanes] = words.w;
    }
  }

  Distribution distribution_;
  uint64_t key_;
  RoundKeys keys_;
  int64_t lanes_ = 0;
  uint32_t high_ = 0;
  bool split_ = false;
  int64_t words_of_ = -1;  // block of 128 columns whose words signs_ holds
  alignas(64) float entries_[kTileQuad * kTileLanes];
  alignas(64) uint64_t j_[kTileLanes], product_[kTileLanes], word_[kTileLanes];
  alignas(64) uint32_t signs_[4 * kTileLanes];
};

}  // namespace GRADEX_ISA
}  // namespace gradex
