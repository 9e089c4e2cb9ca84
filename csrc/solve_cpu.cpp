// Subset regressions on the CPU; compiled once per instruction set.
#include <memory>

#include "solve.h"
#include "subset_solver.h"

namespace gradex {
inline namespace GRADEX_ISA {

std::unique_ptr<SubsetSolver> make_subset_solver(const SubsetData& data, int threads) {
  return std::make_unique<Solver<Element>>(data, threads);
}

}  // namespace GRADEX_ISA
}  // namespace gradex
