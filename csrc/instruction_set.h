// Which compiled copy of the CPU kernels runs: chosen once at load, or by name for tests.
#pragma once
#include <string>
#include <vector>

namespace gradex {

std::vector<std::string> instruction_sets();        // that this machine can run, weakest first
std::string instruction_set();                      // in use
void use_instruction_set(const std::string& name);  // throws std::invalid_argument if not runnable here

}  // namespace gradex
