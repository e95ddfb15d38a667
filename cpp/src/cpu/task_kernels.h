// Kernels of one task by storage type, for the table that a kernels_*.cpp exports as its only symbol. Each of these is
// compiled once per instruction set, with its flags and NORMKIT_ISA_NAME.
#pragma once

#include "cpu/kernels.h"
#include "cpu/tiles.h"

#define NORMKIT_JOIN_(a, b) a##b
#define NORMKIT_JOIN(a, b) NORMKIT_JOIN_(a, b)

// Declares a task's table, and begins its definition.
#define NORMKIT_TABLE(task)                                         \
  extern const TaskKernels NORMKIT_JOIN(task##_, NORMKIT_ISA_NAME); \
  const TaskKernels NORMKIT_JOIN(task##_, NORMKIT_ISA_NAME)

namespace normkit::detail {
namespace {

// Whether more than x and its statistics goes into what is mapped.
inline bool is_fused(const Job& job) {
  return job.operands[operand_mask] != nullptr || job.activation != Activation::none ||
         job.operands[operand_extra] != nullptr;
}

struct JobKernels {
  Kernels kernels;
  int terms;
};

template <class S, class C, class Tile>
void run_tiles(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
  Tiles<C, S> tiles(job, Tile::terms);
  tiles.run(begin, end, [](const Job& tile) { Tile::run(tile, 0, 1); });
}

template <class S, class C, class Rule, class Then>
struct TilesOf {
  static constexpr auto run = run_tiles<S, C, Loops<C, C, Rule, Then, Kind::tiles>>;
};
struct NoTiles {
  static constexpr void (*run)(const Job&, std::int64_t, std::int64_t) noexcept = nullptr;
};

template <class S, class C, class Rule, class Then, class RowsRule = Rule, class Tiles = TilesOf<S, C, Rule, Then>>
NORMKIT_INLINE const JobKernels& kernels_for(const Job& job) {
  using Rows = Loops<S, C, RowsRule, Then, Kind::rows>;
  using Columns = Loops<S, C, Rule, Then, Kind::columns>;
  static constexpr JobKernels rows{
      {Rows::run, Tiles::run, Rows::fold, Finish<C, RowsRule>::slabs, Mapping<S, C, Then, true>::units}, Rule::terms};
  static constexpr JobKernels columns{
      {Columns::run, nullptr, Columns::fold, Finish<C, Rule>::slabs, Mapping<S, C, Then, false>::units}, Rule::terms};
  return job.geometry.schedule == Schedule::rows ? rows : columns;
}

// `KernelsOf<S, C>::kernels(job)` looks up the rule, the map and the schedule: once per call, not per element.
template <template <class, class> class KernelsOf, class S, class C>
struct Entry {
  static void run(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    KernelsOf<S, C>::kernels(job).kernels.run(job, begin, end);
  }
  static void run_tiles(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    KernelsOf<S, C>::kernels(job).kernels.run_tiles(job, begin, end);
  }
  static void fold(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    KernelsOf<S, C>::kernels(job).kernels.fold(job, begin, end);
  }
  static void finish(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    KernelsOf<S, C>::kernels(job).kernels.finish(job, begin, end);
  }
  static void map(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    KernelsOf<S, C>::kernels(job).kernels.map(job, begin, end);
  }

  static constexpr Kernels table{run, run_tiles, fold, finish, map};
};

template <template <class, class> class KernelsOf>
struct TableOf {
  static int terms(const Job& job) noexcept { return KernelsOf<float, float>::kernels(job).terms; }

  static constexpr TaskKernels table{
      terms,
      {Entry<KernelsOf, float, float>::table, Entry<KernelsOf, double, double>::table,
       Entry<KernelsOf, Float16, float>::table, Entry<KernelsOf, BFloat16, float>::table}};
};

}  // namespace
}  // namespace normkit::detail
