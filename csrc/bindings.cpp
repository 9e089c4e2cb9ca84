// The Python boundary: addresses become typed pointers, the GIL is released, nothing is computed.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <exception>
#include <memory>
#include <tuple>

#include "instruction_set.h"
#include "lift.h"
#include "losses.h"
#include "parallel.h"
#include "philox.h"
#include "sketch.h"
#include "solve.h"

namespace py = pybind11;

namespace gradex {
namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

SketchPlan sketch_plan(uintptr_t out, uintptr_t workspace, std::array<int64_t, 2> shape, uint64_t key, float scale,
                       int32_t distribution) {
  return {pointer<float>(out),
          pointer<float>(workspace),
          shape[0],
          shape[1],
          key,
          scale,
          static_cast<Distribution>(distribution)};
}

SketchArguments sketch_arguments(const SketchPlan& plan, std::array<uintptr_t, 3> inputs, std::array<int64_t, 3> shape,
                                 uint64_t offset, std::array<int32_t, 2> types) {
  return {plan,
          pointer<const void>(inputs[0]),
          pointer<const void>(inputs[1]),
          pointer<const int64_t>(inputs[2]),
          shape[0],
          shape[1],
          shape[2],
          offset,
          static_cast<DType>(types[0]),
          static_cast<DType>(types[1])};
}

RowSketchArguments row_sketch_arguments(const SketchPlan& plan, std::array<uintptr_t, 4> inputs,
                                        std::array<int64_t, 3> shape, int32_t type) {
  return {plan,
          pointer<const void>(inputs[0]),
          pointer<const int64_t>(inputs[1]),
          pointer<const int64_t>(inputs[2]),
          pointer<const int64_t>(inputs[3]),
          shape[0],
          shape[1],
          shape[2],
          static_cast<DType>(type)};
}

LiftArguments lift_arguments(uintptr_t out, uintptr_t weights, std::array<int64_t, 3> shape, uint64_t key,
                             uint64_t offset, float scale, int32_t distribution) {
  return {pointer<float>(out),
          pointer<const float>(weights),
          shape[0],
          shape[1],
          shape[2],
          key,
          offset,
          scale,
          static_cast<Distribution>(distribution)};
}

void losses(std::array<uintptr_t, 2> outputs, std::array<uintptr_t, 3> inputs, std::array<int64_t, 3> shape,
            int32_t threads) {
  losses_cpu({pointer<double>(outputs[0]), pointer<float>(outputs[1]), pointer<const double>(inputs[0]),
              pointer<const float>(inputs[1]), pointer<const double>(inputs[2]), shape[0], shape[1], shape[2],
              threads});
}

std::unique_ptr<SubsetSolver> subset_solver(std::array<uintptr_t, 4> inputs, std::array<int64_t, 3> shape,
                                            int64_t most_packed, double divisor, int threads) {
  return make_subset_solver(
      {pointer<const float>(inputs[0]), pointer<const double>(inputs[1]), pointer<const double>(inputs[2]),
       pointer<const int64_t>(inputs[3]), shape[0], shape[1], shape[2], most_packed, divisor},
      threads);
}

// Ctrl-C, and an exception of `progress`, stop the solve and go on from here.
int64_t solve(const SubsetSolver& solver, std::array<uintptr_t, 3> outputs, uintptr_t subsets, int64_t count, double l2,
              double tol, int32_t max_iterations, int32_t threads, int32_t without, const py::object& progress) {
  std::exception_ptr failure;
  const auto proceed = [&](int64_t done) {
    const py::gil_scoped_acquire acquire;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!progress.is_none()) progress(done);
      return true;
    } catch (...) {
      failure = std::current_exception();
      return false;
    }
  };
  int64_t exact = 0;
  {
    const py::gil_scoped_release release;
    exact = solver.solve({pointer<double>(outputs[0]), pointer<int32_t>(outputs[1]), pointer<int32_t>(outputs[2]),
                          pointer<const uint8_t>(subsets), count, l2, tol, max_iterations, threads, without, proceed});
  }
  if (failure) std::rethrow_exception(failure);
  return exact;
}

std::unique_ptr<NeighbourSearch> neighbours(const SubsetSolver& solver, std::array<uintptr_t, 2> validation,
                                            int64_t rows, double l2, int32_t threads) {
  return solver.neighbours({pointer<const float>(validation[0]), pointer<const double>(validation[1]), rows}, l2,
                           threads);
}

std::tuple<int64_t, double, double, int64_t> best_neighbour(NeighbourSearch* search, uintptr_t x, uintptr_t subset,
                                                            uintptr_t moves, int64_t count) {
  const NeighbourSearch::Best best =
      search->best(pointer<double>(x), pointer<const uint8_t>(subset), pointer<const int64_t>(moves), count);
  return {best.move, best.loss, best.now, best.solved};
}

void solve_neighbours(NeighbourSearch* search, uintptr_t x, uintptr_t subset, uintptr_t moves, int64_t count) {
  search->solve(pointer<double>(x), pointer<const uint8_t>(subset), pointer<const int64_t>(moves), count);
}

void evaluate(const SubsetSolver& solver, std::array<uintptr_t, 2> outputs, uintptr_t x, uintptr_t subsets,
              int64_t count, double l2, int32_t threads) {
  solver.evaluate({pointer<double>(outputs[0]), pointer<double>(outputs[1]), pointer<const double>(x),
                   pointer<const uint8_t>(subsets), count, l2, threads});
}

std::array<uint32_t, 4> philox_words(std::array<uint32_t, 4> counter, uint64_t key) {
  const Words words = philox({counter[0], counter[1], counter[2], counter[3]}, key);
  return {words.x, words.y, words.z, words.w};
}

}  // namespace
}  // namespace gradex

PYBIND11_MODULE(_native, m) {
  using namespace gradex;
  using Release = py::call_guard<py::gil_scoped_release>;
  py::class_<SketchPlan>(m, "SketchPlan").def(py::init(&sketch_plan));
  py::class_<SketchArguments>(m, "SketchArguments").def(py::init(&sketch_arguments));
  py::class_<RowSketchArguments>(m, "RowSketchArguments").def(py::init(&row_sketch_arguments));
  py::class_<LiftArguments>(m, "LiftArguments").def(py::init(&lift_arguments));
  m.def("sketch_cpu_workspace", &sketch_cpu_workspace);
  m.def("sketch_cpu", &sketch_cpu, Release());
  m.def("sketch_rows_cpu", &sketch_rows_cpu, Release());
  m.def("sketch_device_workspace", &sketch_device_workspace);
  m.def("sketch_rows_device_workspace", &sketch_rows_device_workspace);
  m.def("sketch_lanes", &sketch_lanes, Release());
  m.def("sketch_rows_lanes", &sketch_rows_lanes, Release());
  m.def("lift_lanes", &lift_lanes, Release());
  m.def("lift_cpu", &gradex::lift_cpu, Release());
  m.attr("largest_search_dim") = kLargestSearchDim;
  m.def("losses_cpu", &losses, Release());
  py::class_<SubsetSolver>(m, "SubsetSolver")
      .def(py::init(&subset_solver), Release())
      .def("solve", &solve)
      .def("evaluate", &evaluate, Release())
      .def("neighbours", &neighbours, py::keep_alive<0, 1>(), Release());
  py::class_<NeighbourSearch>(m, "NeighbourSearch")
      .def("best", &best_neighbour, Release())
      .def("solve", &solve_neighbours, Release());
  m.def("philox", &philox_words);
  m.def("use_team", [](uintptr_t parallel, uintptr_t size) { use_team(pointer<void>(parallel), pointer<void>(size)); });
  m.def("instruction_sets", &instruction_sets);
  m.def("instruction_set", &instruction_set);
  m.def("use_instruction_set", &use_instruction_set);
#ifdef GRADEX_CUDA
  m.def(
      "sketch_cuda",
      [](const SketchArguments& a, int device, uintptr_t stream) { sketch_cuda(a, device, pointer<void>(stream)); },
      Release());
  m.def(
      "sketch_rows_cuda",
      [](const RowSketchArguments& a, int device, uintptr_t stream) {
        sketch_rows_cuda(a, device, pointer<void>(stream));
      },
      Release());
  m.def(
      "lift_cuda",
      [](const LiftArguments& a, int device, uintptr_t stream) { lift_cuda(a, device, pointer<void>(stream)); },
      Release());
  m.attr("cuda") = true;
#else
  m.attr("cuda") = false;
#endif
}
