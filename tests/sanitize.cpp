// The CPU kernels on random problems, for the sanitizers; tests/sanitize.py builds and runs it.
//     sanitize INSTRUCTION_SET ...     all that run here, if none is named
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "instruction_set.h"
#include "sanitize_sketch.h"
#include "sanitize_solve.h"

int main(int count, char** names) {
  std::vector<std::string> wanted(names + 1, names + count);
  if (wanted.empty()) wanted = instruction_sets();
  const std::pair<const char*, void (*)()> parts[] = {
      {"sketch and lift", check_sketches}, {"losses", check_losses},   {"solve", check_solves},
      {"parallel", check_parallel},        {"control", check_control}, {"search", check_searches}};
  for (const std::string& name : wanted) {
    use_instruction_set(name);
    for (const auto& [part, run] : parts) {
      place = name + ", " + part;
      generator.seed(1);
      run();
    }
  }
  std::cout << checks << " checks, " << failures << " failed" << std::endl;
  return failures ? 1 : 0;
}
