// A block's warps and their 32 lanes, on the GPU and, one after another, on the host: a kernel written with them runs
// in a host build too, as sketch_lanes.cpp does. Within one every_warp, no warp may read what another has written, and
// within one every_lane no lane.
#pragma once
#include <cstdint>

#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

constexpr int kLanes = 32, kWarps = 8;  // of a warp; of a block

#ifdef __CUDA_ARCH__

// A value of every lane; on the GPU a lane sees its own only.
template <class T>
struct Lanes {
  T own;
  __device__ __forceinline__ T& operator[](int) { return own; }
  __device__ __forceinline__ const T& operator[](int) const { return own; }
};

template <class Body>
__device__ __forceinline__ void every_lane(const Body& body) {
  body(static_cast<int>(threadIdx.x % kLanes));
}

// A value of every warp that outlives an every_warp.
template <class T>
struct Warps {
  T own;
  __device__ __forceinline__ T& operator[](int) { return own; }
};

// Ends with a barrier: what the warps wrote is there for all.
template <class Body>
__device__ __forceinline__ void every_warp(const Body& body) {
  body(static_cast<int>(threadIdx.x / kLanes));
  __syncthreads();
}

// Lane l's is x's of lane source(l).
template <class Source>
__device__ __forceinline__ Lanes<uint32_t> shuffled(const Lanes<uint32_t>& x, const Source& source) {
  return {__shfl_sync(0xFFFFFFFFu, x.own, source(static_cast<int>(threadIdx.x % kLanes)))};
}

// Before sm_90 the compiler moves so much past this place that its registers run out, unless the lanes meet there.
__device__ __forceinline__ void lanes_meet() {
#if __CUDA_ARCH__ < 900
  __syncwarp();
#endif
}

#else

inline void lanes_meet() {}

template <class T>
struct Lanes {
  T each[kLanes];
  T& operator[](int lane) { return each[lane]; }
  const T& operator[](int lane) const { return each[lane]; }
};

template <class T>
struct Warps {
  T each[kWarps];
  T& operator[](int warp) { return each[warp]; }
};

template <class Body>
inline void every_lane(const Body& body) {
  for (int lane = 0; lane < kLanes; ++lane) body(lane);
}

template <class Body>
inline void every_warp(const Body& body) {
  for (int warp = 0; warp < kWarps; ++warp) body(warp);
}

template <class Source>
inline Lanes<uint32_t> shuffled(const Lanes<uint32_t>& x, const Source& source) {
  Lanes<uint32_t> y;
  for (int lane = 0; lane < kLanes; ++lane) y[lane] = x[source(lane)];
  return y;
}

#endif

}  // namespace GRADEX_ISA
}  // namespace gradex
