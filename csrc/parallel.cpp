#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace gradex {

void run_parallel(int64_t count, int workers, void (*body)(void*, int64_t, int), void* context) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&](int worker) {
    try {
      for (int64_t index; (index = next.fetch_add(1)) < count;) body(context, index, worker);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
      next = count;
    }
  };
  std::vector<std::thread> threads;
  const auto useful = static_cast<int>(std::min<int64_t>(workers, count));
  threads.reserve(static_cast<size_t>(std::max(useful, 1)));
  try {
    for (int worker = 1; worker < useful; ++worker) threads.emplace_back(work, worker);
  } catch (const std::system_error&) {  // no more threads to be had: those that run claim all indices
  }
  work(0);
  for (auto& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace gradex
