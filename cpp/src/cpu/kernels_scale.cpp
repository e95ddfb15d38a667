// The kernels of scaling by given numbers: a map, and no fold.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wmaybe-uninitialized"  // GCC 12 does not see that as many lanes are read as are written
#endif

#include "cpu/scale.h"
#include "cpu/task_kernels.h"

namespace normkit::detail {
namespace {

struct ScaleBy {
  static constexpr bool splits = false;
  template <class C, class S, bool lanes_vary, bool>
  using Map = ScaleMap<C, S, lanes_vary>;
};

template <class S, class C>
void map_scaled(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
  if (job.geometry.schedule == Schedule::rows) return Mapping<S, C, ScaleBy, true>::units(job, begin, end);
  Mapping<S, C, ScaleBy, false>::units(job, begin, end);
}

template <class S, class C>
constexpr Kernels map_only{nullptr, nullptr, nullptr, nullptr, map_scaled<S, C>};

int no_terms(const Job&) noexcept { return 0; }

}  // namespace

NORMKIT_TABLE(scale) = {
    no_terms, {map_only<float, float>, map_only<double, double>, map_only<Float16, float>, map_only<BFloat16, float>}};

}  // namespace normkit::detail
