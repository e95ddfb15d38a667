// Rows, folded: by walks that a row's group makes together (row_walk.h).
#pragma once

#include "cuda/map.h"
#include "cuda/merge.h"
#include "cuda/row_walk.h"

namespace normkit::detail::cuda {

struct Nothing {
  NORMKIT_DEVICE void operator()(std::int64_t, int) const {}
};

/// The bits of a unit's valid values: in all forms but the general one, all of them.
template <class S, bool gradient>
NORMKIT_DEVICE unsigned valid_of(const Job& job, const Found<S, gradient>& unit) {
  unsigned bits = valid_bits<unit_size<S>>(job, unit.at, true, unit.n);
  if (job.omits_nan) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < unit_size<S>; ++i) {
      if (unit.x.value(i) != unit.x.value(i)) bits &= ~(1u << i);
    }
  }
  return bits;
}

/// The same from the tensor, value by value and in double, where squares leave the range of the working type.
template <class S, bool gradient, Form form, class Index>
NORMKIT_DEVICE void deviate_again(const Job& job, const Row<form>& row, Index first, Index units, Deviations& to) {
  Cursor<form> next(job, first);
  NORMKIT_ROLL_DEVICE for (Index u = 0; u < units; ++u, next.step(job)) {
    if (next.unit >= row.end) return;
    Found<S, gradient> found;
    found.place(job, row, next);
    const S* x = operand<const S>(job, operand_x, found.at);
    const unsigned valid = valid_bits<unit_size<S>>(job, found.at, true, found.n);
    NORMKIT_ROLL_DEVICE for (int i = 0; i < unit_size<S>; ++i) {
      if (!is_set(valid, i)) continue;
      const auto value = static_cast<double>(widened(x[i]));
      if (!job.omits_nan || value == value) to.add(value);
    }
  }
}

/// By halves, so that the sum of equal values is exact.
template <int size, class C>
NORMKIT_DEVICE C sum_by_halves(C (&value)[size]) {
  NORMKIT_UNROLL_DEVICE for (int half = size / 2; half > 0; half /= 2) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < half; ++i) value[i] += value[i + half];
  }
  return value[0];
}

/// Moments of rows that stay at hand: the deviations from a number near the mean, which each warp has for itself, that
/// of its threads' first units, and then what they say of the mean. Of one value in eight it may be, of rows in a
/// block's memory of one in 26: the mean of m of n values is no farther from the mean of all than sqrt(sum of squared
/// deviations / m), which costs three bits at the worst, or five. Where values may be missing from these it is that of
/// all.
template <class S, Form form>
struct RowMoments {
  using C = Work<S>;
  using Index = typename Row<form>::Index;
  static constexpr int size = unit_size<S>;

  template <class Block, class Walk>
  static NORMKIT_DEVICE Part<3> of(const Block& block, const Job& job, const Row<form>& row, Walk& walk) {
    const bool centred = job.statistic != Statistic::mean_square;
    walk.begin(block, job, row);
    double count = form == Form::general ? counted(block, job, row, walk) : values_of_warp(job, row);
    C about{0};
    if (centred) about = near_mean(block, job, row, walk);
    const Deviations own = deviations(job, row, walk, about);
    const CountedDeviations all = meet_deviations(block, count, own, job.rows.group, block.shared());
    return part_about(form == Form::general ? all.count : static_cast<double>(job.geometry.count), all.from, centred);
  }

 private:
  static NORMKIT_DEVICE int lanes(const Job& job) { return job.rows.group < warp_size ? job.rows.group : warp_size; }
  /// Units of the row that the threads of a warp begin with; and all that they have.
  static NORMKIT_DEVICE int first_units(const Job& job, const Row<form>& row, Index units) {
    const Index left = units - (row.member & -lanes(job));
    return left <= 0 ? 0 : left < lanes(job) ? static_cast<int>(left) : lanes(job);
  }
  static NORMKIT_DEVICE int values_of_warp(const Job& job, const Row<form>& row) {
    const auto units = static_cast<int>(job.rows.units);
    const int own = (units >> job.rows.group_bits) * lanes(job) + first_units(job, row, units & (job.rows.group - 1));
    return own * size - lacking(job, row);
  }
  /// Values that the last unit lacks, of the warp that has it.
  static NORMKIT_DEVICE int lacking(const Job& job, const Row<form>& row) {
    if constexpr (form != Form::unaligned) return 0;
    const auto units = static_cast<int>(job.rows.units);
    const int last = (units - 1) & (job.rows.group - 1);
    const bool is_own = ((last ^ row.member) & -lanes(job)) == 0;
    return is_own ? units * size - static_cast<int>(job.geometry.count) : 0;
  }

  // Scaled before values meet, so that nothing overflows then.
  template <class Block, class Walk>
  static NORMKIT_DEVICE C near_mean(const Block& block, const Job& job, const Row<form>& row, Walk& walk) {
    const bool of_all = form == Form::general && (job.operands[operand_mask] != nullptr || job.omits_nan);
    const std::int64_t rounds = of_all ? (job.rows.units + job.rows.group - 1) / job.rows.group : 1;
    const int units = first_units(job, row, static_cast<Index>(job.rows.units));
    const auto whole = static_cast<C>((units == 0 ? 1 : units) * rounds * size);
    const C share = units == warp_size && !of_all ? C{1} / C{warp_size * size} : C{1} / whole;  // mostly a constant
    C met[2] = {C{0}, C{0}};
    const auto visit = [&](const auto& found) {
      const unsigned valid = valid_of(job, found);
      C value[size];
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) value[i] = is_set(valid, i) ? found.x.value(i) : C{0};
      C part = sum_by_halves(value) * share;
      if (!is_finite(part)) part = part_in_double(job, found, valid, share);
      met[0] += part;
      met[1] += static_cast<C>(form == Form::general ? __builtin_popcount(valid) : size);
    };
    if constexpr (form != Form::general) {
      walk.first(job, row, visit);
      C mean[1] = {met[0]};
      meet_lanes<Adding>(block, mean, 1, lanes(job));
      if constexpr (form == Form::unaligned) {
        const int lacks = job.rows.units > job.rows.group ? 0 : lacking(job, row);
        if (units > 0 && lacks > 0) return mean[0] * (whole / (whole - static_cast<C>(lacks)));
      }
      return mean[0];
    }
    if (of_all) {
      walk.template each<false>(job, row, [&](const auto& found, int) { visit(found); }, Nothing{});
    } else {
      walk.first(job, row, visit);
    }
    meet_lanes<Adding>(block, met, 1, lanes(job));
    if (met[1] == whole) return met[0];
    return met[1] == C{0} ? C{0} : met[0] * (whole / met[1]);
  }
  static NORMKIT_DEVICE C part_in_double(const Job& job, const Found<S, false>& found, unsigned valid, C share) {
    const S* x = operand<const S>(job, operand_x, found.at);
    double sum = 0.0;
    NORMKIT_ROLL_DEVICE for (int i = 0; i < size; ++i) {
      if (is_set(valid, i)) sum += static_cast<double>(widened(x[i]));
    }
    return static_cast<C>(sum * static_cast<double>(share));
  }
  // Of a warp.
  template <class Block, class Walk>
  static NORMKIT_DEVICE double counted(const Block& block, const Job& job, const Row<form>& row, Walk& walk) {
    int valid[1] = {0};
    walk.template each<false>(
        job, row, [&](const auto& found, int) { valid[0] += __builtin_popcount(valid_of(job, found)); }, Nothing{});
    meet_lanes<Adding>(block, valid, 1, lanes(job));
    return valid[0];
  }
  template <class Walk>
  static NORMKIT_DEVICE Deviations deviations(const Job& job, const Row<form>& row, Walk& walk, C about) {
    Deviations all{static_cast<double>(about)};
    C sum{0};
    C squares[2] = {C{0}, C{0}};
    const auto visit = [&](const auto& found, int) {
      const unsigned valid = valid_of(job, found);
      C d[size];
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        d[i] = is_set(valid, i) ? found.x.value(i) - about : C{0};
        squares[i % 2] = fma(d[i], d[i], squares[i % 2]);
      }
      sum += sum_by_halves(d);
    };
    walk.template each<false>(job, row, visit, [&](Index first, int units) {
      const C together = squares[0] + squares[1];
      if (squares_are_good(together)) {
        all.sum += static_cast<double>(sum);
        all.squares += static_cast<double>(together);
      } else {
        deviate_again<S, false>(job, row, first, Index{units}, all);
      }
      sum = squares[0] = squares[1] = C{0};
    });
    return all;
  }
};

/// What is given of a row's statistic.
template <class C, Form form>
NORMKIT_DEVICE Lane<C> given_of(const Job& job, const Row<form>& row) {
  if (!row.exists || job.column == Column::parameters) return {};
  return given_lane<C>(job, stat_offset(job, row.at.kept[0], row.at.kept[1]));
}

/// Sums for gradients, of a walk that has begun. By statistics, what is known of these is the same along the row.
/// `params(found, u, around)` brings weight and bias.
template <class S, Column column = Column::statistics, Form form, class Block, class Walk, class Bring>
NORMKIT_DEVICE Part<4> row_gradients(const Block& block, const Job& job, const Row<form>& row,
                                     const Lane<Work<S>>& given, Walk& walk, double* shared, const Bring& params) {
  using C = Work<S>;
  constexpr int size = unit_size<S>;
  GradientSums<C> sums;
  Count count;
  Around<C, size> around;
  constexpr bool by_statistics = column == Column::statistics;
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    around.high[i] = given.high;
    around.low[i] = job.row_lines ? C{0} : given.low;
    around.rstd[i] = given.rstd;
  }
  const auto fold = [&](const Job& of, auto alone) {
    walk.template each<false, !alone>(
        of, row,
        [&](const auto& found, int u) {
          if (!by_statistics) read_statistics<S, true>(of, found.at, found.n, around);
          if (!alone) params(found, u, around);
          const unsigned valid = mapped_bits<size>(of, found.at, true, found.n);
          Gradient<C> gradients[size];
          gradients_of<false>(of, found.x, found.dy, found.beside, valid, around, gradients, weighs_gradients(of));
          NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
            // What stands in for values has no dy, but may be further from the mean than floats go.
            if (form == Form::unaligned && i >= found.n) gradients[i].centred = gradients[i].unit = C{0};
            sums.add(gradients[i]);
          }
          count.recent += has_whole_units(form) ? size : __builtin_popcount(valid);
        },
        [&](auto, int) {
          sums.flush();
          count.flush();
        });
  };
  if constexpr (form != Form::general && by_statistics) {
    if (folds_alone(job)) {
      fold(without_weight(job), std::true_type{});
    } else {
      fold(job, std::false_type{});
    }
  } else {
    fold(job, std::false_type{});
  }
  C met[3] = {sums.total[0], sums.total[1], sums.total[2]};
  meet<Adding>(block, met, job.rows.group, shared);
  double values[1] = {count.value};
  if constexpr (form == Form::general) {
    meet<Adding>(block, values, job.rows.group, shared + 3);
  } else {
    values[0] = form == Form::unaligned ? static_cast<double>(job.geometry.count)  // of which there are no chunks
                                        : static_cast<double>(row.end - (row.begin - row.member)) * size;
  }
  return {{values[0], static_cast<double>(met[0]), static_cast<double>(met[1]), static_cast<double>(met[2])}};
}

template <class S, Column column = Column::statistics, Form form, class Block, class Walk>
NORMKIT_DEVICE Part<4> row_gradients(const Block& block, const Job& job, const Row<form>& row,
                                     const Lane<Work<S>>& given, Walk& walk) {
  walk.begin(block, job, row);
  return row_gradients<S, column>(
      block, job, row, given, walk, block.shared(), [&](const auto& found, int, auto& around) {
        if (!needs_params(job)) return;
        const bool stays = job.weight.along == Along::row && job.form != Form::general;
        around.params = params_at<S, true>(stays ? job : along_row<form>(job), found.at, found.n);
      });
}

/// The part of a row, or of a chunk of one, from one walk.
template <class S, class Sums, Form form, class Block, class Walk>
NORMKIT_DEVICE Part<Sums::terms> fold_row(const Block& block, const Job& job, const Row<form>& row, Walk& walk) {
  using C = Work<S>;
  constexpr int size = unit_size<S>;
  Sums sums;
  Count count;
  sums.begin(job);
  const bool weighed = Sums::may_weigh && job.operands[operand_weight] != nullptr;
  walk.begin(block, job, row);
  walk.template each<false>(
      job, row,
      [&](const auto& found, int) {
        C value[size];
        NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) value[i] = found.x.value(i);
        const unsigned valid = valid_of(job, found);
        if constexpr (Sums::may_weigh) {
          if (weighed) {
            double weights[size];
            read_weights<size>(job, found.at, true, found.n, weights);
            NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
              if (is_set(valid, i)) sums.add_weighed(value[i], weights[i], count);
            }
            return;
          }
        }
        sums.recall(value, valid, count);
        count.recent += form == Form::general ? __builtin_popcount(valid) : size;
      },
      [&](auto first, int units) {
        sums.flush(count, [&](Deviations& to) {
          deviate_again<S, false>(job, row, first, static_cast<decltype(first)>(units), to);
        });
        count.flush();
      });
  return meet_sums(block, sums, count, job.rows.group, block.shared());
}

/// What a map may have beside x and its statistic, of which a walk need ask only once: weight and bias as they vary.
enum class Beside : std::uint8_t { anything, weight, weight_and_bias, weight_and_bias_of_work, of_row, of_unit };

template <class S>
NORMKIT_DEVICE Beside beside(const Job& job) {
  const bool residual = !job.adds && job.operands[operand_second] != nullptr;
  if (residual || job.activation != Activation::none || job.weight.offset != 0.0) return Beside::anything;
  if (job.weight.along <= Along::row && job.bias.along <= Along::row) {
    return job.weight.along == Along::row && job.bias.along == Along::row ? Beside::of_row : Beside::of_unit;
  }
  if (job.weight.along == Along::storage) {
    if (job.bias.data == nullptr) return Beside::weight;
    if (job.bias.along == Along::storage) return Beside::weight_and_bias;
  }
  const bool work = sizeof(S) == 2 && job.weight.along == Along::work && job.bias.along == Along::work;
  return work ? Beside::weight_and_bias_of_work : Beside::anything;
}
/// The job that has no more than that, likewise as constants.
template <Along along>
NORMKIT_DEVICE Job with_no_more(Job job) {
  job = alone<Task::normalize>(job);
  job.weight.along = job.bias.along = along;
  job.weight.offset = job.bias.offset = 0.0;
  return job;
}
template <Along along, bool biased>
NORMKIT_DEVICE Job with_no_more_along(Job job) {
  job = with_no_more<along>(job);
  job.bias.along = biased ? along : Along::row;
  job.bias.absent = 0.0;
  if constexpr (!biased) job.bias.data = nullptr;
  return job;
}

template <class S, Task task, Form form, class Walk>
NORMKIT_DEVICE void map_units(const Job& job, const Row<form>& row, Walk& walk, const UnitLanes<S, true>& lane) {
  Params<Work<S>, unit_size<S>> params;
  const bool stay = job.form != Form::general && job.weight.along == Along::row && job.bias.along == Along::row;
  if (stay && maps_params<task>(job)) params = params_at<S, true>(job, row.at, unit_size<S>);
  walk.template each<task == Task::gradient, task == Task::gradient || task == Task::normalize>(
      job, row,
      [&](const auto& found, int u) {
        if (!stay && maps_params<task>(job)) params = params_at<S, true>(along_row<form>(job), found.at, found.n);
        map_unit<S, true, task>(job, found.at, found.n, found.x, found.dy, found.beside, lane, params,
                                walk.results(job, row, u));
      },
      Nothing{});
}

/// What becomes of a row's units.
template <class S, Task task, Form form, class Walk>
NORMKIT_DEVICE void map_row(const Job& job, const Row<form>& row, Walk& walk, const UnitLanes<S, true>& lane) {
  if constexpr (are_lines(form) && task == Task::normalize) {
    switch (beside<S>(job)) {
      case Beside::weight: return map_units<S, task>(with_no_more_along<Along::storage, false>(job), row, walk, lane);
      case Beside::weight_and_bias:
        return map_units<S, task>(with_no_more_along<Along::storage, true>(job), row, walk, lane);
      case Beside::weight_and_bias_of_work:
        if constexpr (sizeof(S) == 2) {
          return map_units<S, task>(with_no_more_along<Along::work, true>(job), row, walk, lane);
        }
        break;
      default: break;
    }
  }
  if constexpr (form == Form::plain && task == Task::normalize) {
    switch (beside<S>(job)) {
      case Beside::of_row: return map_units<S, task>(with_no_more<Along::row>(job), row, walk, lane);
      case Beside::of_unit: return map_units<S, task>(with_no_more<Along::shared>(job), row, walk, lane);
      default: break;
    }
  }
  if constexpr (form != Form::general && task == Task::gradient) {  // with weighed ones, too, long rows spill registers
    if (maps_alone<task>(job) && !job.weighs) {
      return map_units<S, task>(without_weight(alone<task>(job)), row, walk, lane);
    }
  }
  map_units<S, task>(job, row, walk, lane);
}

}  // namespace normkit::detail::cuda
