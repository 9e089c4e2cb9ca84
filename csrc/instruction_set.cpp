// No copy of the kernels itself: their namespaces are named below.
#define GRADEX_ISA none
#include "instruction_set.h"

#include <atomic>
#include <stdexcept>

#ifdef GRADEX_X86
#include "cpu_features.h"
#endif
#include "lift.h"
#include "losses.h"
#include "sketch.h"
#include "solve.h"

namespace gradex {

#define GRADEX_DECLARE(isa)                                                                   \
  namespace isa {                                                                             \
  int64_t sketch_cpu_workspace(const SketchPlan&, int64_t out_features, int64_t in_features); \
  void sketch_cpu(const SketchArguments&, int workers);                                       \
  void sketch_rows_cpu(const RowSketchArguments&, int workers);                               \
  void lift_cpu(const LiftArguments&, int workers);                                           \
  void losses_cpu(const LossArguments&);                                                      \
  }
#define GRADEX_DECLARE_SOLVER(isa)                                                  \
  namespace isa {                                                                   \
  std::unique_ptr<SubsetSolver> make_subset_solver(const SubsetData&, int threads); \
  }

GRADEX_DECLARE(baseline)
GRADEX_DECLARE_SOLVER(baseline)
#ifdef GRADEX_X86
GRADEX_DECLARE(avx2)
GRADEX_DECLARE_SOLVER(avx2)
GRADEX_DECLARE(avx512)
GRADEX_DECLARE_SOLVER(avx512)
GRADEX_DECLARE_SOLVER(avx512bf16)
#endif

namespace {

struct Kernels {
  const char* name;
  decltype(&baseline::sketch_cpu_workspace) sketch_workspace;
  decltype(&baseline::sketch_cpu) sketch;
  decltype(&baseline::sketch_rows_cpu) sketch_rows;
  decltype(&baseline::lift_cpu) lift;
  decltype(&baseline::losses_cpu) losses;
  decltype(&baseline::make_subset_solver) make_solver;
};

#define GRADEX_KERNELS(isa, solver)                                                           \
  {#solver,       isa::sketch_cpu_workspace, isa::sketch_cpu,           isa::sketch_rows_cpu, \
   isa::lift_cpu, isa::losses_cpu,           solver::make_subset_solver}

const std::vector<Kernels>& runnable() {
  static const std::vector<Kernels> kernels = [] {
    std::vector<Kernels> found = {GRADEX_KERNELS(baseline, baseline)};
#ifdef GRADEX_X86
    const CpuFeatures cpu = cpu_features();
    if (cpu.avx2) found.push_back(GRADEX_KERNELS(avx2, avx2));
    if (cpu.avx512) found.push_back(GRADEX_KERNELS(avx512, avx512));
    if (cpu.avx512bf16) found.push_back(GRADEX_KERNELS(avx512, avx512bf16));
#endif
    return found;
  }();
  return kernels;
}

std::atomic<const Kernels*>& active() {
  static std::atomic<const Kernels*> kernels{&runnable().back()};
  return kernels;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels& kernels : runnable()) names.emplace_back(kernels.name);
  return names;
}

std::string instruction_set() { return active().load()->name; }

void use_instruction_set(const std::string& name) {
  for (const Kernels& kernels : runnable()) {
    if (name == kernels.name) {
      active() = &kernels;
      return;
    }
  }
  throw std::invalid_argument("instruction set '" + name + "' cannot run here");
}

int64_t sketch_cpu_workspace(const SketchPlan& plan, int64_t out_features, int64_t in_features) {
  return active().load()->sketch_workspace(plan, out_features, in_features);
}
void sketch_rows_cpu(const RowSketchArguments& arguments, int workers) {
  active().load()->sketch_rows(arguments, workers);
}
void sketch_cpu(const SketchArguments& arguments, int workers) { active().load()->sketch(arguments, workers); }
void lift_cpu(const LiftArguments& arguments, int workers) { active().load()->lift(arguments, workers); }
void losses_cpu(const LossArguments& arguments) { active().load()->losses(arguments); }
std::unique_ptr<SubsetSolver> make_subset_solver(const SubsetData& data, int threads) {
  return active().load()->make_solver(data, threads);
}

}  // namespace gradex
