// Rows that begin anywhere, by way of their block's memory: copied there and back in pieces of 16 bytes, as the
// tensor's memory has them, whatever units these belong to. Once they are there each thread puts its own units together
// from two pieces each. Beyond a row's end there are zeros.
#pragma once

#include "cuda/row_walk.h"

namespace normkit::detail::cuda {

template <class S>
NORMKIT_DEVICE Unit<S> whole(const Unit<S>* unit) {
  return load_unit<unit_size<S>>(reinterpret_cast<const S*>(unit), unit_size<S>, true);
}

/// Units that begin within one and end within the next: with the `word`th word, or with its second half.
template <int word>
struct Across {
  int bits;  // before them in that word: 0, or 16
  template <class S>
  NORMKIT_DEVICE Unit<S> operator()(const Unit<S>* first) const {
    const Unit<S> own = whole(first);
    const Unit<S> next = whole(first + 1);
    std::uint32_t words[8];
    memcpy(words, &own, sizeof own);
    memcpy(words + 4, &next, sizeof next);
    std::uint32_t across[4];
    NORMKIT_UNROLL_DEVICE for (int w = 0; w < 4; ++w) {
      across[w] = sizeof(S) == 2 ? word_across(words[word + w], words[word + w + 1], bits) : words[word + w];
    }
    Unit<S> unit;
    memcpy(&unit, across, sizeof unit);
    return unit;
  }
};
/// Calls visit(across), where across(first) is the unit that begins so many elements after `first` does.
template <class S, class Visit>
NORMKIT_DEVICE void visit_across(int elements, const Visit& visit) {
  const int bytes = elements * static_cast<int>(sizeof(S));
  const int bits = bytes % 4 * 8;
  switch (bytes / 4) {
    case 0: return visit(Across<0>{bits});
    case 1: return visit(Across<1>{bits});
    case 2: return visit(Across<2>{bits});
    default: return visit(Across<3>{bits});
  }
}

/// Where results of a unit go: dx or y to the block's memory, others to the tensor.
template <class S>
struct ToBlock {
  Unit<S>* unit;
  Unit<S>* copy;  // or null
  NORMKIT_DEVICE void put(const Unit<S>& values) const {
    *unit = values;
    if (copy != nullptr) *copy = values;
  }
  template <int size>
  NORMKIT_DEVICE void operator()(const Job& job, int which, const Place& at, int n,
                                 const Work<S> (&values)[size]) const {
    if (which != operand_out) return ToTensor<S>{}(job, which, at, n, values);
    Unit<S> results;
    results.set(values);
    put(results);
  }
};

/// A block's rows in its memory, of one operand, `kept` units to a thread: round by round the units that those who
/// share a row have side by side, and one more, which is the first of the next.
template <class S, int kept, int threads>
class BlockRows {
  using Row = cuda::Row<Form::unaligned>;
  static constexpr int size = unit_size<S>;
  static constexpr int round = threads + threads / least_block_group;

 public:
  static constexpr int units = kept * round;

  BlockRows() = default;
  /// `memory`: of the block, so many units.
  NORMKIT_DEVICE BlockRows(const Job& job, int thread, Unit<S>* memory)
      : first_(memory + thread + (thread >> job.rows.group_bits)) {}
  /// Those of another operand, that lie behind so many others.
  [[nodiscard]] NORMKIT_DEVICE BlockRows behind(int others) const {
    BlockRows rows = *this;
    rows.first_ += others * units;
    return rows;
  }
  [[nodiscard]] NORMKIT_DEVICE Unit<S>* unit(int u) const { return first_ + u * round; }
  [[nodiscard]] NORMKIT_DEVICE ToBlock<S> results(const Job& job, const Row& row, int u) const {
    return {unit(u), u > 0 && member(job, row) == 0 ? unit(u - 1) + across(job) : nullptr};
  }

  /// From a row of the tensor, as it lies there. Of its first piece more may be read than there is of the row.
  NORMKIT_DEVICE void take(Copies& copies, const Job& job, const Row& row, const S* from) const {
    if (!row.exists) return;
    const int begin = begin_in_piece(from);
    // Of rounds that blocks share, each has its own: what its first and last piece have of others' may be written by
    // them.
    const bool is_shared = job.rows.cluster_bits != 0;
    const auto add = [&](Unit<S>* to, int piece, int before, int after) {
      const S* const source = from - begin + piece * size;
      const int left = extent(job) + begin - piece * size;
      if (left >= size) {
        copies.add(to, source, before, after);
      } else if (piece <= row.end) {  // the last unit may end in one more than there are units
        copies.add_part(to, left > 0 ? source : from - begin, left > 0 ? left * static_cast<int>(sizeof(S)) : 0);
      }
    };
    const int u = member(job, row);  // whose round's last piece this thread takes, too
    NORMKIT_UNROLL_DEVICE for (int v = 0; v < kept; ++v) {
      const int piece = row.begin + v * job.rows.group;
      add(unit(v), piece, u == 0 && (is_shared || piece == 0) ? begin : 0, 0);
    }
    if (u >= kept) return;
    add(unit(u) - u + across(job), row.begin - u + u * job.rows.group + across(job), 0, is_shared ? size - begin : 0);
  }
  /// What has been put, to a row of the tensor: pieces, and what there is less at both ends.
  NORMKIT_DEVICE void leave(const Job& job, const Row& row, S* to) const {
    if (!row.exists) return;
    const bool is_shared = job.rows.cluster_bits != 0;  // by blocks that have every so many-th round of the row
    const int before = -begin_in_piece(to) & (size - 1);
    const int first = row.begin - member(job, row);
    visit_across<S>(before, [&](const auto& across_units) {
      NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u) {
        const int at = (row.begin + u * job.rows.group) * size + before;
        const int end = is_shared ? end_of_round(job, first + u * job.rows.group) : extent(job);
        if (at + size <= end) store_unit(to + at, size, true, across_units(unit(u)));
      }
    });
    NORMKIT_ROLL_DEVICE for (int u = 0; u < (is_shared ? kept : 1); ++u) {
      const int unit = first + u * job.rows.group;
      leave_ends(job, row, to, before, unit * size, is_shared ? end_of_round(job, unit) : extent(job));
    }
  }

 private:
  Unit<S>* first_;  // of this thread

  // Threads of the block that share a row, and which of these this one is.
  static NORMKIT_DEVICE int across(const Job& job) { return job.rows.group < threads ? job.rows.group : threads; }
  static NORMKIT_DEVICE int member(const Job& job, const Row& row) { return row.member & (across(job) - 1); }
  static NORMKIT_DEVICE int extent(const Job& job) { return static_cast<int>(job.geometry.reduced[2].extent); }
  static NORMKIT_DEVICE int end_of_round(const Job& job, int unit) {
    const int end = (unit + across(job)) * size;
    return end < extent(job) ? end : extent(job);
  }
  // Of the values from `begin` to `end` those before the first whole piece and after the last.
  NORMKIT_DEVICE void leave_ends(const Job& job, const Row& row, S* to, int before, int begin, int end) const {
    const int whole = end - begin < before ? 0 : (end - begin - before) & -size;
    NORMKIT_ROLL_DEVICE for (int i = member(job, row); i < 2 * size; i += across(job)) {
      const int at = begin + (i < size ? i : before + whole + i - size);
      if (at >= end || (i < size && i >= before)) continue;
      const int unit = at / size - (row.begin - member(job, row));
      const int u = unit >> job.rows.group_bits;
      const Unit<S>* const its = first_ - member(job, row) + u * round + (unit - u * job.rows.group);
      to[at] = reinterpret_cast<const S*>(its)[at % size];
    }
  }
};

struct NoWalk {};
/// What walks by way of the block's memory do with results, beside what else they are.
template <class S, int kept, int threads, class Walk = NoWalk>
struct LeftInBlock : Walk {
  using Row = cuda::Row<Form::unaligned>;
  BlockRows<S, kept, threads> rows;  // of x, whose place results take

  [[nodiscard]] NORMKIT_DEVICE ToBlock<S> results(const Job& job, const Row& row, int u) const {
    return rows.results(job, row, u);
  }
  template <class Block>
  NORMKIT_DEVICE void end(const Block& block, const Job& job, const Row& row) const {
    if (job.operands[operand_out] == nullptr) return;
    block.sync();
    rows.leave(job, row, operand<S>(job, operand_out, row.at));
  }
};

/// In registers, by way of the block's memory, where results go too.
template <class S, bool gradient, int kept, int threads>
struct KeptInBlock : LeftInBlock<S, kept, threads, Kept<S, gradient, Form::unaligned, kept>> {
  using Left = LeftInBlock<S, kept, threads, Kept<S, gradient, Form::unaligned, kept>>;
  using Left::rows, Left::results;
  using typename Left::Row;
  Unit<S>* memory;  // of the block, for one operand, or for two: of gradients and of sums

  template <class Block>
  NORMKIT_DEVICE void begin(const Block& block, const Job& job, const Row& row) {
    const bool adds = !gradient && job.adds;
    rows = {job, block.thread(), memory};
    const auto others = rows.behind(1);
    const S* const x_row = operand<const S>(job, operand_x, row.at);
    Copies copies;
    rows.take(copies, job, row, adds ? operand<const S>(job, operand_third, row.at) : x_row);
    if (gradient || adds) others.take(copies, job, row, operand<const S>(job, operand_second, row.at));
    copies.close_group();
    copies.template wait<0>();
    block.sync();
    visit_across<S>(begin_in_piece(x_row), [&](const auto& across) {
      NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u) {
        if (row.begin + u * job.rows.group >= row.end) continue;
        this->x[u] = across(rows.unit(u));
        if constexpr (gradient) this->dy[u] = across(others.unit(u));
        if (adds) this->x[u] = sum_of(this->x[u], across(others.unit(u)));
      }
    });
    block.sync();
    if (adds) leave_sums(block, job, row);
  }

 private:
  template <class Block>
  NORMKIT_DEVICE void leave_sums(const Block& block, const Job& job, const Row& row) const {
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u) {
      if (row.begin + u * job.rows.group < row.end) results(job, row, u).put(this->x[u]);
    }
    block.sync();
    rows.leave(job, row, operand<S>(job, operand_x, row.at));
    block.sync();
  }
};

/// A slab's rows one after the other (slabs.h), the next being asked for before one is worked on. dx takes the place of
/// x.
template <class S, int kept, int threads>
struct StagedInBlock : LeftInBlock<S, kept, threads> {
  using typename LeftInBlock<S, kept, threads>::Row;
  using LeftInBlock<S, kept, threads>::rows;  // of one of two stages; dy lies behind x
  using Rows = BlockRows<S, kept, threads>;
  static constexpr int units = 2 * 2 * Rows::units;
  Rows first_rows;  // of both stages x and dy in turn
  Copies copies;

  NORMKIT_DEVICE void open(const Job& job, int thread, Unit<S>* stages) { first_rows = {job, thread, stages}; }
  NORMKIT_DEVICE void ask(const Job& job, const Row& row, bool odd) {
    const Rows to = first_rows.behind(odd ? 2 : 0);
    to.take(copies, job, row, operand<const S>(job, operand_x, row.at));
    to.behind(1).take(copies, job, row, operand<const S>(job, operand_second, row.at));
    copies.close_group();
  }
  /// What was asked for last, of a row. The next is, when nobody needs what came before any more.
  template <class Block, class Ask>
  NORMKIT_DEVICE void take(const Block& block, const Job& job, const Row& row, bool odd, bool last,
                           const Ask& ask_next) {
    rows = first_rows.behind(odd ? 2 : 0);
    copies.template wait<0>();
    block.sync();
    const int begin = begin_in_piece(operand<const S>(job, operand_x, row.at));
    NORMKIT_ROLL_DEVICE for (int which = 0; which < 2; ++which) move(block, begin, rows.behind(which));
    if (!last) ask_next();
  }
  template <bool again, bool beside = false, class Visit, class Close>
  NORMKIT_DEVICE void each(const Job& job, const Row& row, const Visit& visit, const Close& close) const {
    Cursor<Form::unaligned> next(job, forgotten(row.begin));
    const auto first = next.unit;
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u, next.step(job)) {
      if (next.unit >= row.end) continue;
      Found<S, true> unit;
      unit.place(job, row, next);
      unit.x = *rows.unit(u);
      unit.dy = *rows.behind(1).unit(u);
      visit(unit, u);
    }
    close(first, kept);
  }

 private:
  // To where units are whole; all of them are read before any is written.
  template <class Block>
  static NORMKIT_DEVICE void move(const Block& block, int begin, const Rows& operand) {
    Unit<S> own[kept];
    visit_across<S>(begin, [&](const auto& across) {
      NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u) own[u] = across(operand.unit(u));
    });
    block.sync();
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u) {
      Unit<S>* const to = operand.unit(u);
      *to = own[u];
    }
  }
};

}  // namespace normkit::detail::cuda
