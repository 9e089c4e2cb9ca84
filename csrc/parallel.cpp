#include "parallel.h"

#ifdef __unix__
#include <pthread.h>
#endif

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace gradex {

namespace {

using ForkJoin = void (*)(void (*)(void*), void*, unsigned workers, unsigned flags);  // GOMP_parallel
using Size = int (*)();                                                               // omp_get_max_threads

std::atomic<ForkJoin> team{nullptr};
std::atomic<Size> team_size{nullptr};

// What all workers share. The caller's thread is worker 0, the others take a number; then each takes one index after
// another.
struct Work {
  int64_t count;
  void (*body)(void*, int64_t, int);
  void* context;
  std::thread::id caller = std::this_thread::get_id();
  std::atomic<int64_t> next{0};
  std::atomic<int> others{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;

  void run() {
    const int worker = std::this_thread::get_id() == caller ? 0 : ++others;
    try {
      for (int64_t index; (index = next.fetch_add(1)) < count;) body(context, index, worker);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
      next = count;
    }
  }
};

void run_on_own_threads(Work* work, int workers) {
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(workers));
  try {
    for (int worker = 1; worker < workers; ++worker) threads.emplace_back([=] { work->run(); });
  } catch (const std::system_error&) {  // no more threads to be had: those that run claim all indices
  }
  work->run();
  for (auto& thread : threads) thread.join();
}

}  // namespace

void use_team(void* gomp_parallel, void* omp_get_max_threads) {
  team_size = reinterpret_cast<Size>(omp_get_max_threads);
  team = reinterpret_cast<ForkJoin>(gomp_parallel);
#ifdef __unix__
  pthread_atfork(nullptr, nullptr, [] { team = nullptr; });  // a team does not survive a fork
#endif
}

void run_parallel(int64_t count, int workers, void (*body)(void*, int64_t, int), void* context) {
  Work work{count, body, context};
  const auto useful = static_cast<int>(std::min<int64_t>(workers, count));
  const ForkJoin fork_join = team;
  if (fork_join && useful > 1 && useful <= team_size.load()()) {  // a runtime that gets no thread ends the process
    fork_join([](void* shared) { static_cast<Work*>(shared)->run(); }, &work, static_cast<unsigned>(useful), 0);
  } else {
    run_on_own_threads(&work, useful);
  }
  if (work.failure) std::rethrow_exception(work.failure);
}

}  // namespace gradex
