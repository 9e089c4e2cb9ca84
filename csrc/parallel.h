// parallel_for on torch's own team of threads, or on std::thread. No OpenMP of ours: two runtimes in one process fight
// for the cores.
#pragma once
#include <cstdint>
#include <type_traits>

#include "target.h"

namespace gradex {

// body(context, index, worker) for every index in [0, count), worker in [0, workers), 0 the caller's own thread;
// indices are claimed in order. The first exception of a body is rethrown here after all workers have stopped.
void run_parallel(int64_t count, int workers, void (*body)(void*, int64_t, int), void* context);

// The runtime that torch has loaded; without it, or for more workers than its team has, threads of our own. The idle
// workers of its team spin for milliseconds after each of torch's operations: others wait for the cores that long.
void use_team(void* gomp_parallel, void* omp_get_max_threads);

inline namespace GRADEX_ISA {

// Calls body(index, worker).
template <class Body>
inline void parallel_for_worker(int64_t count, int workers, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  run_parallel(
      count, workers, [](void* context, int64_t index, int worker) { (*static_cast<Plain*>(context))(index, worker); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Calls body(index).
template <class Body>
inline void parallel_for(int64_t count, int workers, Body&& body) {
  parallel_for_worker(count, workers, [&](int64_t index, int) { body(index); });
}

}  // namespace GRADEX_ISA
}  // namespace gradex
