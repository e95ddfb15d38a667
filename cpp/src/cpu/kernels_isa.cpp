// Compiled once per instruction set, with its flags and NORMKIT_ISA_NAME; exports one symbol, the table.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wmaybe-uninitialized"  // GCC 12 does not see that as many lanes are read as are written
#endif

#include "cpu/kernels.h"
#include "cpu/tiles.h"

#define NORMKIT_JOIN_(a, b) a##b
#define NORMKIT_JOIN(a, b) NORMKIT_JOIN_(a, b)
#define NORMKIT_STRING_(a) #a
#define NORMKIT_STRING(a) NORMKIT_STRING_(a)

namespace normkit::detail {
namespace {

struct JobKernels {
  Kernels kernels;
  int terms;
};

template <class S, class C, class Tile>
void run_tiles(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
  Tiles<C, S> tiles(job, Tile::terms);
  tiles.run(begin, end, [](const Job& tile) { Tile::run(tile, 0, 1); });
}

template <class S, class C, class Rule, class Then, class RowsRule = Rule>
NORMKIT_INLINE const JobKernels& kernels_for(const Job& job) {
  using Rows = Loops<S, C, RowsRule, Then, Kind::rows>;
  using Columns = Loops<S, C, Rule, Then, Kind::columns>;
  using Tile = Loops<C, C, Rule, Then, Kind::tiles>;
  static constexpr JobKernels rows{{Rows::run, run_tiles<S, C, Tile>, Rows::fold, Rows::finish, Rows::map},
                                   Rule::terms};
  static constexpr JobKernels columns{{Columns::run, nullptr, Columns::fold, Columns::finish, Columns::map},
                                      Rule::terms};
  return job.geometry.schedule == Schedule::rows ? rows : columns;
}

template <class S, class C, bool fused, Column column, class Then>
NORMKIT_INLINE const JobKernels& gradient_kernels(const Job& job) {
  return kernels_for<S, C, GradientRule<fused, column, false>, Then, GradientRule<fused, column, true>>(job);
}

// The schedule, the rule and the map are looked up once per call, not per element.
template <class S, class C>
const JobKernels& kernels_of(const Job& job) {
  const bool masked = job.operands[operand_mask] != nullptr;
  const bool fused = masked || job.activation != Activation::none || job.operands[operand_extra] != nullptr;
  if (job.task == Task::moments) return kernels_for<S, C, VarianceRule<Of::valid_with_range>, NoMap>(job);
  if (job.task == Task::gradient) {
    if (job.column == Column::parameters) {
      return fused ? gradient_kernels<S, C, true, Column::parameters, NoMap>(job)
                   : gradient_kernels<S, C, false, Column::parameters, NoMap>(job);
    }
    return fused ? gradient_kernels<S, C, true, Column::statistics, Differentiate<true>>(job)
                 : gradient_kernels<S, C, false, Column::statistics, Differentiate<false>>(job);
  }
  switch (job.statistic) {
    case Statistic::mean_square: return kernels_for<S, C, MeanSquareRule, NormalizeUncentred>(job);
    case Statistic::range: return kernels_for<S, C, RangeRule, Rescale>(job);
    default: break;
  }
  if (masked) return kernels_for<S, C, VarianceRule<Of::valid>, NormalizeFused>(job);
  const bool adds_residual = job.operands[operand_second] != nullptr && !job.adds;
  if (fused || adds_residual) return kernels_for<S, C, VarianceRule<Of::all>, NormalizeFused>(job);
  return kernels_for<S, C, VarianceRule<Of::all>, Normalize>(job);
}

template <class S, class C>
struct Entry {
  static void run(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels_of<S, C>(job).kernels.run(job, begin, end);
  }
  static void run_tiles(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels_of<S, C>(job).kernels.run_tiles(job, begin, end);
  }
  static void fold(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels_of<S, C>(job).kernels.fold(job, begin, end);
  }
  static void finish(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels_of<S, C>(job).kernels.finish(job, begin, end);
  }
  static void map(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels_of<S, C>(job).kernels.map(job, begin, end);
  }

  static constexpr Kernels table{run, run_tiles, fold, finish, map};
};

int terms(const Job& job) noexcept { return kernels_of<float, float>(job).terms; }

}  // namespace

extern const KernelTable NORMKIT_JOIN(kernels_, NORMKIT_ISA_NAME);
const KernelTable NORMKIT_JOIN(kernels_, NORMKIT_ISA_NAME) = {
    NORMKIT_STRING(NORMKIT_ISA_NAME),
    terms,
    {Entry<float, float>::table, Entry<double, double>::table, Entry<Float16, float>::table,
     Entry<BFloat16, float>::table},
};

}  // namespace normkit::detail
