// Subset regressions on the CPU; compiled once per instruction set.
#include <memory>

#include "neighbours.h"
#include "solve.h"
#include "subset_solver.h"

namespace gradex {
inline namespace GRADEX_ISA {

template <class Element>
std::unique_ptr<NeighbourSearch> Solver<Element>::neighbours(const ValidationData& validation, double l2,
                                                             int threads) const {
  return std::make_unique<Neighbours<Element>>(known_, validation, l2, threads);
}

std::unique_ptr<SubsetSolver> make_subset_solver(const SubsetData& data, int threads) {
  return std::make_unique<Solver<Element>>(data, threads);
}

}  // namespace GRADEX_ISA
}  // namespace gradex
