// The units of a row, or of a chunk of one, as a thread of its group goes through them: from registers, from shared
// memory or from the tensor. Every way visits the same units in the same order, `row_batch` of them at a time:
//   begin(block, job, row)         before any walk: x is made where it is a sum, and what is kept is taken along
//   first(job, row, visit)         visit(found) the thread's first unit, if it has one
//   each(job, row, visit, close)   visit(found, u) each unit, close(first unit, units) after each batch;
//                                  `beside`: with what is read beside x and dy (read.h)
//   results(job, row, u)           where results of what is visited as u go (map.h)
//   end(block, job, row)           when all of them are there
#pragma once

#include "cuda/copies.h"
#include "cuda/map.h"
#include "cuda/row.h"

namespace normkit::detail::cuda {

/// A walk whose results go to the tensor one by one.
template <class S>
struct WritesTensor {
  template <Form form>
  static NORMKIT_DEVICE ToTensor<S> results(const Job&, const Row<form>&, int) {
    return {};
  }
  template <class Block, Form form>
  static NORMKIT_DEVICE void end(const Block&, const Job&, const Row<form>&) {}
};

/// Of a thread's next `units` units, visit(u, place, values) those that there are; of a full row these are all.
template <class S, int units, bool full = false, Form form, class Visit>
NORMKIT_DEVICE void each_unit(const Job& job, const Row<form>& row, Cursor<form> next, const Visit& visit) {
  NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u, next.step(job)) {
    if (!full && next.unit >= row.end) continue;
    Found<S, false> found;
    found.place(job, row, next);
    visit(u, found.at, found.n);
  }
}
/// Reads `units` units of an operand, all of them before the first is used. What lies beyond the row's end is left as
/// it was.
template <class S, int units, Form form>
NORMKIT_DEVICE void take_units(const Job& job, const Row<form>& row, const Cursor<form>& first, int which,
                               Unit<S>* to) {
  each_unit<S, units>(job, row, first,
                      [&](int u, const Place& at, int n) { to[u] = unit_at<S, unit_size<S>>(job, which, at, n); });
}
/// Reads x, and for gradients dy. Where x is a sum (`adds`) it is made, some units at a time: more would take registers
/// from all else.
template <class S, bool gradient, int units, Form form>
NORMKIT_DEVICE void read_units(const Job& job, const Row<form>& row, Cursor<form> first, bool adds, Unit<S> (&x)[units],
                               Unit<S> (&dy)[units]) {
  if constexpr (gradient) {
    take_units<S, units>(job, row, first, operand_x, x);
    take_units<S, units>(job, row, first, operand_second, dy);
  } else if (adds) {
    constexpr int some = units < row_batch ? units : row_batch;
    NORMKIT_UNROLL_DEVICE for (int from = 0; from < units; from += some) {
      Unit<S> second[some];
      take_units<S, some>(job, row, first, operand_second, second);
      take_units<S, some>(job, row, first, operand_third, x + from);
      each_unit<S, some>(job, row, first, [&](int u, const Place& at, int n) {
        x[from + u] = sum_of(x[from + u], second[u]);
        store_unit(operand<S>(job, operand_x, at), n, job.aligned, x[from + u]);
      });
      NORMKIT_UNROLL_DEVICE for (int u = 0; u < some; ++u) first.step(job);
    }
  } else {
    take_units<S, units>(job, row, first, operand_x, x);
  }
}

/// What there is beside x and dy of a batch of units.
template <class S, bool gradient, bool beside, int units, Form form>
NORMKIT_DEVICE void read_beside(const Job& job, const Row<form>& row, const Cursor<form>& first, Unit<S> (&to)[units]) {
  if (beside && has_beside<gradient>(job)) take_units<S, units>(job, row, first, operand_beside<gradient>, to);
}

/// From the tensor, each time: several units before the first of them is used, but in the general form, whose code is
/// to be small.
template <class S, bool gradient, Form form>
struct Streamed : WritesTensor<S> {
  static constexpr int units = form == Form::general ? 1 : row_batch;

  template <class Block>
  NORMKIT_DEVICE void begin(const Block&, const Job& job, const Row<form>& row) const {
    if (!job.adds) return;
    for (Cursor<form> next(job, row.begin); next.unit < row.end;) {
      Unit<S> x[units], dy[units];
      read_units<S, gradient>(job, row, next, true, x, dy);
      NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u) next.step(job);
    }
  }
  template <class Visit>
  NORMKIT_DEVICE void first(const Job& job, const Row<form>& row, const Visit& visit) const {
    if (row.begin >= row.end) return;
    const Cursor<form> unit(job, row.begin);
    Unit<S> x[1], dy[1];
    read_units<S, gradient>(job, row, unit, false, x, dy);
    Found<S, gradient> found;
    found.place(job, row, unit);
    found.x = x[0];
    if constexpr (gradient) found.dy = dy[0];
    visit(found);
  }
  template <bool again, bool beside = false, class Visit, class Close>
  NORMKIT_DEVICE void each(const Job& job, const Row<form>& row, const Visit& visit, const Close& close) const {
    for (Cursor<form> next(job, row.begin); next.unit < row.end;) {
      const auto first = next.unit;
      NORMKIT_ROLL_DEVICE for (int from = 0; from < row_batch; from += units) {
        Unit<S> x[units], dy[units], more[units];
        read_units<S, gradient>(job, row, next, false, x, dy);
        read_beside<S, gradient, beside>(job, row, next, more);
        next.forget();
        NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u, next.step(job)) {
          if (next.unit >= row.end) continue;
          Found<S, gradient> found;
          found.place(job, row, next);
          found.x = x[u];
          if constexpr (gradient) found.dy = dy[u];
          if constexpr (beside) found.beside = more[u];
          visit(found, from + u);
        }
      }
      close(first, row_batch);
    }
  }
};

/// In registers, `kept` units of a row.
template <class S, bool gradient, Form form, int kept>
struct Kept : WritesTensor<S> {
  static constexpr int batch = kept < row_batch ? kept : row_batch;
  Unit<S> x[kept];
  Unit<S> dy[kept];

  template <class Block>
  NORMKIT_DEVICE void begin(const Block&, const Job& job, const Row<form>& row) {
    read_units<S, gradient>(job, row, Cursor<form>(job, row.begin), job.adds, x, dy);
  }
  template <class Visit>
  NORMKIT_DEVICE void first(const Job& job, const Row<form>& row, const Visit& visit) const {
    if (row.begin < row.end) visit(found(job, row, Cursor<form>(job, row.begin), 0));
  }
  template <bool again, bool beside = false, class Visit, class Close>
  NORMKIT_DEVICE void each(const Job& job, const Row<form>& row, const Visit& visit, const Close& close) {
    if constexpr (again) {
      NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u) {
        x[u] = forgotten(x[u]);
        if constexpr (gradient) dy[u] = forgotten(dy[u]);
      }
    }
    // Where units are is no reason to keep registers from one walk to the next.
    Cursor<form> next(job, forgotten(row.begin));
    NORMKIT_UNROLL_DEVICE for (int b = 0; b < kept; b += batch) {
      const auto first = next.unit;
      NORMKIT_UNROLL_DEVICE for (int u = b; u < b + batch; ++u, next.step(job)) {
        if (next.unit >= row.end) continue;
        Found<S, gradient> unit = found(job, row, next, u);
        if (beside && has_beside<gradient>(job)) {  // one by one: registers are full
          unit.beside = unit_at<S, unit_size<S>>(job, operand_beside<gradient>, unit.at, unit.n);
        }
        visit(unit, u);
      }
      close(first, batch);
    }
  }

 private:
  NORMKIT_DEVICE Found<S, gradient> found(const Job& job, const Row<form>& row, const Cursor<form>& at, int u) const {
    Found<S, gradient> unit;
    unit.place(job, row, at);
    unit.x = x[u];
    if constexpr (gradient) unit.dy = dy[u];
    return unit;
  }
};

/// In memory of the block, of which each thread finds what it has left there: its units of x, or in turn of x and dy,
/// `threads` apart.
template <class S, bool gradient, Form form, int threads>
struct Shared : WritesTensor<S> {
  static constexpr int apart = gradient ? 2 * threads : threads;
  static constexpr int parts = 4;
  Unit<S>* kept;  // this thread's first
  Copies copies;

  // Groups of copies: the first unit, and `parts` of all the others, of which the first are folded while the last come.
  template <class Block>
  NORMKIT_DEVICE void begin(const Block&, const Job& job, const Row<form>& row) {
    if (job.adds) return make_sums(job, row);
    const int each = units_of_part(job, row);
    Unit<S>* to = kept;
    Cursor<form> next(job, row.begin);
    NORMKIT_ROLL_DEVICE for (int part = 0; part < parts; ++part) {
      NORMKIT_ROLL_DEVICE for (int u = 0; u < each && next.unit < row.end; ++u, next.step(job), to += apart) {
        Found<S, gradient> found;
        found.place(job, row, next);
        copies.add(to, operand<const S>(job, operand_x, found.at));
        if constexpr (gradient) copies.add(to + threads, operand<const S>(job, operand_second, found.at));
        if (to == kept) copies.close_group();
      }
      copies.close_group();
    }
  }
  template <class Visit>
  NORMKIT_DEVICE void first(const Job& job, const Row<form>& row, const Visit& visit) {
    copies.template wait<parts>();
    if (row.begin < row.end) visit(found(job, row, Cursor<form>(job, row.begin), kept));
  }
  template <bool again, bool beside = false, class Visit, class Close>
  NORMKIT_DEVICE void each(const Job& job, const Row<form>& row, const Visit& visit, const Close& close) {
    const int units = units_of_part(job, row);
    int part = 0;
    int left = 0;  // units that are there
    const Unit<S>* from = kept;
    for (Cursor<form> next(job, row.begin); next.unit < row.end; from += row_batch * apart, left -= row_batch) {
      if (!again && left == 0) {
        wait_for(part++);
        left = units;
      }
      const auto first = next.unit;
      Unit<S> more[row_batch];
      read_beside<S, gradient, beside>(job, row, next, more);
      NORMKIT_UNROLL_DEVICE for (int u = 0; u < row_batch; ++u, next.step(job)) {
        if (next.unit >= row.end) continue;
        Found<S, gradient> at = found(job, row, next, from + u * apart);
        if constexpr (beside) at.beside = more[u];
        visit(at, u);
      }
      close(first, row_batch);
    }
  }

 private:
  // Whole batches.
  static NORMKIT_DEVICE int units_of_part(const Job& job, const Row<form>& row) {
    const int units = (row.end - row.begin + job.rows.group - 1) >> job.rows.group_bits;
    constexpr int whole = parts * row_batch;
    return (units + whole - 1) / whole * row_batch;
  }
  NORMKIT_DEVICE void wait_for(int part) {
    static_assert(parts == 4);
    switch (part) {
      case 0: return copies.template wait<3>();
      case 1: return copies.template wait<2>();
      case 2: return copies.template wait<1>();
      default: copies.template wait<0>();
    }
  }
  NORMKIT_DEVICE void make_sums(const Job& job, const Row<form>& row) const {
    Unit<S>* to = kept;
    for (Cursor<form> next(job, row.begin); next.unit < row.end; to += row_batch * apart) {
      Unit<S> x[row_batch], dy[row_batch];
      read_units<S, gradient>(job, row, next, true, x, dy);
      NORMKIT_UNROLL_DEVICE for (int u = 0; u < row_batch; ++u, next.step(job)) {
        if (next.unit < row.end) to[u * apart] = x[u];
      }
    }
  }
  NORMKIT_DEVICE Found<S, gradient> found(const Job& job, const Row<form>& row, const Cursor<form>& at,
                                          const Unit<S>* values) const {
    Found<S, gradient> unit;
    unit.place(job, row, at);
    unit.x = values[0];
    if constexpr (gradient) unit.dy = values[threads];
    return unit;
  }
};

}  // namespace normkit::detail::cuda
