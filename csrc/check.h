// A CUDA error becomes an exception that names the call.
#pragma once
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace gradex {

inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string(call) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

#define GRADEX_CHECK(call) ::gradex::check((call), #call)

// Makes `device` current for a scope; the caller's device is restored however the scope ends.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    GRADEX_CHECK(cudaGetDevice(&previous_));
    GRADEX_CHECK(cudaSetDevice(device));
  }
  ~DeviceScope() { static_cast<void>(cudaSetDevice(previous_)); }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = 0;
};

}  // namespace gradex
