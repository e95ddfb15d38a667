// Where things lie: the pieces of a reduction, and the runs of elements they are made of.
#pragma once

#include "cpu/kernel_table.h"
#include "cpu/memory.h"

namespace normkit::detail {
namespace {

// Outer positions [outer_begin, outer_end), and of each the values [begin, begin + length) of the unit-stride run.
// For columns and tiles a position is a reduced index and the run is not used.
struct Piece {
  std::int64_t outer_begin, outer_end;
  std::int64_t begin, length;

  std::int64_t count() const { return (outer_end - outer_begin) * length; }
};

inline std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// Calls body(l) for the first n lanes, which must have nothing to do with each other. Sixteen at a time, which the
// compiler knows how to make vectors of.
template <class Body>
NORMKIT_INLINE void each_lane(int n, Body body) {
  int l = 0;
  for (; l + 16 <= n; l += 16) {
    NORMKIT_INDEPENDENT for (int k = 0; k < 16; ++k) body(l + k);
  }
  for (; l < n; ++l) body(l);
}

struct Quotient {
  std::int64_t quotient, remainder;
};

// Most axes of a merged geometry have extent 1, and a division costs as much as folding a dozen vectors.
inline Quotient divide(std::int64_t a, std::int64_t b) {
  if (__builtin_expect(b == 1, 1)) return {a, 0};
  return {a / b, a % b};
}

inline Piece piece(const Job& job, const Grid& grid, std::int64_t block) {
  const bool rows = job.geometry.schedule == Schedule::rows;
  const std::int64_t run = rows ? job.geometry.reduced[2].extent : 1;
  if (grid.blocks_per_run > 1) {
    const auto [outer, part] = divide(block, grid.blocks_per_run);
    const std::int64_t begin = part * row_block;
    return {outer, outer + 1, begin, smaller(row_block, run - begin)};
  }
  const std::int64_t positions = job.outer[0].extent * job.outer[1].extent * job.outer[2].extent;
  const std::int64_t each = grid.runs_per_block * job.tile_run;
  const std::int64_t begin = block * each;
  return {begin, smaller(begin + each, positions), 0, run};
}

using OuterIndex = std::int64_t[3];

inline void outer_index(const Job& job, std::int64_t position, OuterIndex& index) {
  const auto [rest, inner] = divide(position, job.outer[2].extent);
  const auto [first, middle] = divide(rest, job.outer[1].extent);
  index[0] = first;
  index[1] = middle;
  index[2] = inner;
}

// Outer positions [begin, end) as spans along the innermost outer axis: visit(index on each outer axis, length).
template <class Visit>
NORMKIT_INLINE void for_spans(const Job& job, std::int64_t begin, std::int64_t end, Visit visit) {
  while (begin < end) {
    OuterIndex index;
    outer_index(job, begin, index);
    const std::int64_t length = smaller(job.outer[2].extent - index[2], end - begin);
    visit(index, length);
    begin += length;
  }
}

inline std::int64_t data_offset(const Job& job, const OuterIndex& index, int operand) {
  std::int64_t offset = 0;
  for (int a = 0; a < 3; ++a) offset += index[a] * job.outer[a].data_stride[operand];
  return offset;
}

// Statistics that are folded side by side: neighbours along kept[1], from `lane` on.
struct Slab {
  std::int64_t k0, lane;
  int lanes;
};

inline std::int64_t slabs_along(const Job& job) { return divide(job.slabs, job.geometry.kept[0].extent).quotient; }

inline Slab slab_at(const Job& job, std::int64_t k0, std::int64_t index) {
  const std::int64_t lane = index * job.slab_lanes;
  return {k0, lane, static_cast<int>(smaller(job.slab_lanes, job.geometry.kept[1].extent - lane))};
}

struct Unit {
  std::int64_t k0, chunk, index;
};

inline Unit unit_at(const Job& job, const Grid& grid, std::int64_t unit) {
  const auto [rest, index] = divide(unit, slabs_along(job));
  const auto [k0, chunk] = divide(rest, grid.chunks);
  return {k0, chunk, index};
}

struct BlockRange {
  std::int64_t begin, end;
};

inline BlockRange blocks_of(const Grid& grid, std::int64_t chunk) {
  const std::int64_t begin = chunk * grid.blocks_per_chunk;
  return {begin, smaller(begin + grid.blocks_per_chunk, grid.blocks)};
}

// Where runs begin: a position on the kept axes, and for rows one along the unit-stride axis.
struct Start {
  std::int64_t k0, lane;
  std::int64_t in_slab;  // `lane`, counted from the slab's first
  std::int64_t begin;
};

// The operand's element where runs begin; null where it is absent.
template <class T>
NORMKIT_INLINE T* operand_at(const Job& job, const Start& start, int operand) {
  if (job.operands[operand] == nullptr) return nullptr;
  const Geometry& g = job.geometry;
  return static_cast<T*>(job.operands[operand]) + start.k0 * g.kept[0].data_stride[operand] +
         start.lane * g.kept[1].data_stride[operand] + start.begin * g.reduced[2].data_stride[operand];
}

// Whether an operand that may do without varies along the unit-stride axis.
inline bool varies_along_unit(const Job& job, int operand) {
  const bool rows = job.geometry.schedule == Schedule::rows;
  return (rows ? job.geometry.reduced[2] : job.geometry.kept[1]).data_stride[operand] != 0;
}
inline bool mask_varies(const Job& job) { return varies_along_unit(job, operand_mask); }

// The elements of a run that the mask `p` leaves; all where there is none.
template <class C>
NORMKIT_INLINE typename Vec<C>::Bits valid_at(const std::uint8_t* p, bool varies, std::int64_t i) {
  if (p == nullptr) return ~typename Vec<C>::Bits{};
  if (varies) return nonzero_bytes<C>(p + i);
  return p[0] != 0 ? ~typename Vec<C>::Bits{} : typename Vec<C>::Bits{};
}
template <class C>
__attribute__((noinline)) typename Vec<C>::Bits nonzero_first(const std::uint8_t* p, int n) {
  std::uint8_t bytes[Vec<C>::width] = {};
  for (int k = 0; k < n; ++k) bytes[k] = p[k];
  return nonzero_bytes<C>(bytes);
}
template <class C>
NORMKIT_AT_ENDS typename Vec<C>::Bits valid_first(const std::uint8_t* p, bool varies, std::int64_t i, int n) {
  if (p != nullptr && varies) return nonzero_first<C>(p + i, n);
  return first_lanes<C>(n) & valid_at<C>(p, varies, i);
}

}  // namespace
}  // namespace normkit::detail
