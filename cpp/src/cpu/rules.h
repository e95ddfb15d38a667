// What is taken of a block, how blocks merge, and what becomes of the total: one rule per kind of statistic.
// A rule sees `width` statistics side by side (blocks.h) and never a tensor. It has
//   terms                    how many numbers it knows of a statistic, in float64 (Part in math.h, then others)
//   counts                   whether the last of them is a count: without one, all of a block's values count
//   averages                 whether `finish` divides by the count
//   Reader                   what its folds read
//   slots                    the lanes (kernel_table.h) that `finish` fills for the map
//   weighs_lanes             whether pooled lanes are weighed before they merge (cpu/gradient.h)
//   fold(block, so_far, parts), merge(a, b, weight, cross)
//   finish(ending, total, count, share, lanes, lane), where share.of(v) is v / (count - ddof)
#pragma once

#include "cpu/division.h"
#include "cpu/folds.h"
#include "cpu/parts.h"
#include "math.h"

namespace normkit::detail {
namespace {

// The values of a slab's lanes, by name.
template <class C>
struct LanesView {
  C* of[lane_count];
};

// What `finish` wants of a job: a copy that no store can reach, so that its loops are loops over vectors.
struct Ending {
  double eps, ddof;
  bool given;
  bool centred;

  explicit Ending(const Job& job)
      : eps(job.eps), ddof(job.ddof), given(job.given), centred(job.statistic == Statistic::variance) {}
};

// What the standard library calls std::conditional and std::is_same: no template of its own may be used here.
template <bool condition, class A, class B>
struct Choose {
  using Type = A;
};
template <class A, class B>
struct Choose<false, A, B> {
  using Type = B;
};
template <class A, class B>
struct Same {
  static constexpr bool value = false;
};
template <class A>
struct Same<A, A> {
  static constexpr bool value = true;
};

// float squares leave their range where |x - mean| does (1e-19 ... 1e19): such a block is folded again in double. Below
// `tiny_square` on average a sum of squares may have lost digits; beside an eps above 1e-20 they do not matter.
inline bool in_range(double sum_of_squares, double count, double eps) {
  const double tiny_square = eps >= 1e-20 ? 0.0 : 1e-30;
  return (sum_of_squares >= tiny_square * count) & (sum_of_squares <= 3e38);
}

// Rare, and as much code as all the rest where the compiler takes it for usual.
template <class Rule, class Block>
__attribute__((noinline, cold)) void fold_widened(const Block& block, const PartsView<Rule::terms>* so_far,
                                                  Parts<Rule::terms, Block::width>& parts) {
  Rule::fold(block.widened(), so_far, parts);
}

// In columns only the lanes that need it take the wide result: a neighbour must not change a statistic's bits.
template <class Rule, class Block>
NORMKIT_INLINE void widen_where_needed(const Block& block, const PartsView<Rule::terms>* so_far,
                                       const typename Block::Work (&squares)[Block::width],
                                       Parts<Rule::terms, Block::width>& parts) {
  if constexpr (sizeof(typename Block::Work) == 4 && Block::may_leave_range) {
    const auto most = static_cast<double>(block.piece.count());
    const double eps = block.job->eps;
    const auto needed = [&](int l) {
      return !in_range(squares[l], Rule::counts ? parts.term[Rule::terms - 1][l] : most, eps);
    };
    int any = 0;
    each_lane(block.in_use(), [&](int l) { any |= needed(l); });
    if (__builtin_expect(any == 0, 1)) return;
    Parts<Rule::terms, Block::width> wide;
    fold_widened<Rule>(block, so_far, wide);
    for (int l = 0; l < block.in_use(); ++l) {
      if (!needed(l)) continue;
      for (int t = 0; t < Rule::terms; ++t) parts.term[t][l] = wide.term[t][l];
    }
  }
}

// Which values count, whether by their weights, and whether their range is wanted too. Where only NaN may not be valid,
// those present are folded, and how many they are says whether there were others, which may propagate.
enum class Of { all, valid, present_with_range, valid_with_range, weighed_with_range };

template <Of of, class C, class S>
struct ReaderOf {
  using Type = MaskedReader<C, S>;
};
template <class C, class S>
struct ReaderOf<Of::all, C, S> {
  using Type = ValuesReader<C, S>;
};
template <class C, class S>
struct ReaderOf<Of::present_with_range, C, S> {
  using Type = PresentReader<C, S>;
};
template <class C, class S>
struct ReaderOf<Of::weighed_with_range, C, S> {
  using Type = WeighedReader<C, S>;
};

// How many of a block's values count, where `found` of `all` do.
template <Of of>
NORMKIT_INLINE double counted(double found, double all, bool omits_nan) {
  return of == Of::present_with_range && !omits_nan ? all : found;
}

// Terms: mean, sum of squared deviations; then min and max with a range; then the count of valid values, or the sum of
// their weights.
template <Of of>
struct VarianceRule {
  static constexpr bool counts = of != Of::all;
  static constexpr bool ranged = of != Of::all && of != Of::valid;
  static constexpr int terms = ranged ? 5 : counts ? 3 : 2;
  static constexpr int count_at = terms - 1;
  static constexpr bool weighs_lanes = false;
  static constexpr bool averages = true;
  static constexpr LaneName slots[] = {lane_mean_high, lane_mean_low, lane_scale};
  template <class C, class S>
  using Reader = typename ReaderOf<of, C, S>::Type;
  // Results: sum and sum of squares about the shift, the count, the range.
  template <class L>
  using Sums = typename Choose<counts, CountedSumAbout<L>, SumAbout<L>>::Type;
  template <class L>
  using Squares = typename Choose<ranged, RangedSquares<L>,
                                  typename Choose<counts, CountedSquaresAbout<L>, SquaresAbout<L>>::Type>::Type;

  // `so_far`: the statistics from earlier blocks, whose means are good shifts. Where there is none yet, the block's
  // head has one; should it be no good, the mean that comes of it is.
  template <class Block>
  static void fold(const Block& block, const PartsView<terms>* so_far, Parts<terms, Block::width>& parts) {
    using C = typename Block::Work;
    C shift[Block::width];
    C sums[terms][Block::width];
    const bool given = has_shifts(so_far, block.in_use());
    if (given) {
      each_lane(block.computed(), [&](int l) { shift[l] = static_cast<C>(so_far->term[0][l]); });
    } else {
      find_shifts(block, so_far, shift);
    }
    take(block, shift, sums, parts);
    const auto all = static_cast<double>(block.piece.count());
    if (!given && any_poor(sums, parts, all, block.in_use())) take_again(block, shift, sums, parts);
    widen_where_needed<VarianceRule>(block, so_far, sums[1], parts);
  }

 private:
  // Where all of a block's values count, and these are no float64, their number need not be divided by (division.h).
  template <class Block>
  static constexpr bool divides = counts || Block::is_double;

  template <class Block, class C>
  static NORMKIT_INLINE void find_shifts(const Block& block, const PartsView<terms>* so_far, C (&shift)[Block::width]) {
    const Block head = block.head();
    C pilot[counts ? 2 : 1][Block::width];
    if constexpr (requires { head.template reduce_about_first<Sums>(shift, pilot); }) {
      head.template reduce_about_first<Sums>(shift, pilot);
    } else {
      block.first(shift);
      head.template reduce<Sums>(shift, pilot);
    }
    means_of<divides<Block>>(so_far, pilot, static_cast<double>(head.piece.count()), block.computed(), shift);
  }

  // One piece of code for the first time and the second: it is most of a fold's.
  template <class Block, class C>
  static NORMKIT_NOINLINE void take(const Block& block, const C (&shift)[Block::width], C (&sums)[terms][Block::width],
                                    Parts<terms, Block::width>& parts) {
    const bool omits_nan = block.job->omits_nan;
    block.template reduce<Squares>(shift, sums);
    if constexpr (ranged && of != Of::present_with_range) {
      if (!omits_nan) find_nan(block, sums);
    }
    const auto all = static_cast<double>(block.piece.count());
    parts_of<divides<Block>>(shift, sums, all, omits_nan, block.computed(), parts);
  }

  // A sum that is NaN may be one of infinities.
  template <class Block, class C>
  static NORMKIT_INLINE void find_nan(const Block& block, C (&sums)[terms][Block::width]) {
    int any = 0;
    each_lane(block.in_use(), [&](int l) { any |= sums[0][l] != sums[0][l]; });
    if (__builtin_expect(any == 0, 1)) return;
    C zero[Block::width];
    C range[3][Block::width];
    each_lane(block.computed(), [&](int l) { zero[l] = C{0}; });
    block.template reduce<ValidExtremes>(zero, range);
    each_lane(block.computed(), [&](int l) {
      sums[3][l] = range[0][l];
      sums[4][l] = range[1][l];
    });
  }

  // A shift that lies more than a standard deviation from the mean costs digits of the squares. In columns only the
  // lanes that need it take the second result: a neighbour must not change a statistic's bits.
  template <class Block, class C>
  static void take_again(const Block& block, C (&shift)[Block::width], C (&sums)[terms][Block::width],
                         Parts<terms, Block::width>& parts) {
    const auto all = static_cast<double>(block.piece.count());
    const auto before = parts;
    C first[2][Block::width];
    for (int l = 0; l < block.in_use(); ++l) {
      first[0][l] = sums[0][l];
      first[1][l] = sums[1][l];
      if (is_poor(sums, parts, all, l)) shift[l] = static_cast<C>(parts.term[0][l]);
    }
    take(block, shift, sums, parts);
    for (int l = 0; l < block.in_use(); ++l) {
      if (is_poor(first, before, all, l)) continue;
      sums[1][l] = first[1][l];
      for (int t = 0; t < terms; ++t) parts.term[t][l] = before.term[t][l];
    }
  }

  // What follows is the same for all blocks of a width: compiled once, whatever the storage type.

  static bool has_shifts(const PartsView<terms>* so_far, int lanes) {
    if (so_far == nullptr) return false;
    if constexpr (counts) {
      for (int l = 0; l < lanes; ++l) {
        if (!(so_far->term[count_at][l] > 0.0)) return false;
      }
    }
    return true;
  }

  // The means of what has been summed about `shift`, in its place.
  template <bool divides, class C, int results, int width>
  static void means_of(const PartsView<terms>* so_far, const C (&pilot)[results][width], double all, int lanes,
                       C (&shift)[width]) {
    const typename Choose<divides, Division, WholeDivision>::Type share{all};
    each_lane(lanes, [&](int l) {
      if (counts && so_far != nullptr && so_far->term[count_at][l] > 0.0) {
        shift[l] = static_cast<C>(so_far->term[0][l]);
      } else if (!counts || pilot[counts ? 1 : 0][l] > C{0}) {
        const auto sum = static_cast<double>(pilot[0][l]);
        const double mean = counts ? sum / static_cast<double>(pilot[counts ? 1 : 0][l]) : share.of(sum);
        shift[l] = static_cast<C>(shift[l] + mean);
      }
    });
  }

  template <bool divides, class C, int width>
  static void parts_of(const C (&shift)[width], const C (&sums)[terms][width], double all, bool omits_nan, int lanes,
                       Parts<terms, width>& parts) {
    const typename Choose<divides, Division, WholeDivision>::Type share{all};
    each_lane(lanes, [&](int l) {
      const double found = counts ? static_cast<double>(sums[counts ? 2 : 0][l]) : all;
      const double n = counted<of>(found, all, omits_nan);
      const auto known = [&](double value) {
        return of == Of::present_with_range && found != n ? __builtin_nan("") : value;
      };
      const double s1 = known(sums[0][l]);
      const Part part = moments_about(shift[l], s1, sums[1][l], counts ? s1 / (n == 0.0 ? 1.0 : n) : share.of(s1));
      parts.term[0][l] = counts && n == 0.0 ? 0.0 : part.first;
      parts.term[1][l] = part.second;
      if constexpr (ranged) {
        parts.term[2][l] = known(sums[3][l]);
        parts.term[3][l] = known(sums[4][l]);
      }
      if constexpr (counts) parts.term[count_at][l] = n;
    });
  }

  template <class C, int width>
  static bool any_poor(const C (&sums)[terms][width], const Parts<terms, width>& parts, double all, int lanes) {
    int any = 0;
    each_lane(lanes, [&](int l) { any |= is_poor(sums, parts, all, l); });
    return any != 0;
  }
  template <class C, int results, int width>
  static NORMKIT_INLINE bool is_poor(const C (&sums)[results][width], const Parts<terms, width>& parts, double all,
                                     int l) {
    const double n = counts ? parts.term[count_at][l] : all;
    const double s1 = sums[0][l];
    return s1 * s1 > n * parts.term[1][l];
  }

 public:
  static NORMKIT_INLINE void merge(double* a, const double* b, double weight, double cross) {
    const Part part = merge_moments({a[0], a[1]}, {b[0], b[1]}, weight, cross);
    a[0] = part.first;
    a[1] = part.second;
    if constexpr (ranged) {
      a[2] = least_of(a[2], b[2]);
      a[3] = greatest_of(a[3], b[3]);
    }
  }

  template <class C, class Share>
  static NORMKIT_INLINE void finish(const Ending& ending, double* total, double count, const Share& share,
                                    const LanesView<C>& lanes, int lane) {
    const auto high = static_cast<C>(total[0]);
    // Too few valid values for ddof have no variance, but for those that do not deviate at all.
    double variance = share.of(total[1]);
    if (counts && count <= ending.ddof) variance = total[1] == 0.0 ? 0.0 : __builtin_nan("");
    lanes.of[lane_mean_high][lane] = high;
    lanes.of[lane_mean_low][lane] = static_cast<C>(total[0] - static_cast<double>(high));
    lanes.of[lane_scale][lane] = narrowed<C>(reciprocal_std(variance, ending.eps));
  }
};

// Terms: 0, sum of squares.
struct MeanSquareRule {
  static constexpr bool counts = false;
  static constexpr int terms = 2;
  static constexpr bool weighs_lanes = false;
  static constexpr bool averages = true;
  static constexpr LaneName slots[] = {lane_mean_high, lane_mean_low, lane_scale};
  template <class C, class S>
  using Reader = ValuesReader<C, S>;

  template <class Block>
  static void fold(const Block& block, const PartsView<terms>*, Parts<terms, Block::width>& parts) {
    using C = typename Block::Work;
    C shift[Block::width];
    each_lane(block.computed(), [&](int l) { shift[l] = C{0}; });
    C squares[1][Block::width];
    block.template reduce<Squares>(shift, squares);
    each_lane(block.computed(), [&](int l) {
      parts.term[0][l] = 0.0;
      parts.term[1][l] = squares[0][l];
    });
    widen_where_needed<MeanSquareRule>(block, nullptr, squares[0], parts);
  }

  static NORMKIT_INLINE void merge(double* a, const double* b, double, double) { a[1] += b[1]; }

  template <class C, class Share>
  static NORMKIT_INLINE void finish(const Ending& ending, double* total, double, const Share& share,
                                    const LanesView<C>& lanes, int lane) {
    lanes.of[lane_mean_high][lane] = C{0};
    lanes.of[lane_mean_low][lane] = C{0};
    lanes.of[lane_scale][lane] = narrowed<C>(reciprocal_std(share.of(total[1]), ending.eps));
  }
};

}  // namespace
}  // namespace normkit::detail
