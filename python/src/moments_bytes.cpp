// Moments as bytes: a mark, then words of 8 bytes, little-endian on every machine:
// version, rank, extents, five doubles for each value in C order, and the CRC-32 of all that is before it.

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arrays.h"
#include "state.h"

namespace normkit::python {
namespace {

constexpr std::string_view mark = "nkmoment";
constexpr std::uint64_t version = 1;
constexpr std::array fields = {&Moments::count, &Moments::mean, &Moments::m2, &Moments::min, &Moments::max};
static_assert(sizeof(Moments) == fields.size() * sizeof(double), "a new field is a new version");

std::uint64_t checksum(std::string_view bytes) {
  const nb::object crc = nb::module_::import_("binascii").attr("crc32")(nb::bytes(bytes.data(), bytes.size()));
  return nb::cast<std::uint64_t>(crc);
}

void put(std::string& bytes, std::uint64_t word) {
  char little[8];
  for (int i = 0; i < 8; ++i) little[i] = static_cast<char>(word >> 8 * i);
  bytes.append(little, sizeof little);
}

std::uint64_t swapped(std::uint64_t word) {
  std::uint64_t other = 0;
  for (int i = 0; i < 8; ++i) other = other << 8 | (word >> 8 * i & 0xff);
  return other;
}

[[noreturn]] void refuse_data(std::string_view invariant, const std::string& got, std::string_view remedy = {}) {
  refuse(PyExc_ValueError, {"Moments.from_bytes", "data"}, invariant, got, remedy);
}

/// Takes one word after the other, and refuses where there is none.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes), next_(mark.size()) {}

  std::uint64_t word() {
    if (left() < 8) refuse_data("must be complete", std::to_string(bytes_.size()) + " bytes, which end too early");
    std::uint64_t word = 0;
    for (std::size_t i = 8; i-- > 0;) word = word << 8 | static_cast<unsigned char>(bytes_[next_ + i]);
    next_ += 8;
    return word;
  }

  double number() { return std::bit_cast<double>(word()); }
  [[nodiscard]] std::size_t left() const { return bytes_.size() - next_; }

 private:
  std::string_view bytes_;
  std::size_t next_;
};

void check_version(std::uint64_t seen) {
  if (seen == version) return;
  if (seen == swapped(version))
    refuse_data("must be in the byte order of to_bytes", "the words of it in reverse order");
  refuse_data("must be of a version that this normkit reads, " + std::to_string(version),
              "version " + std::to_string(seen), "a newer normkit wrote it, or it is damaged");
}

/// The shape, and how many bytes are behind it.
std::vector<std::int64_t> read_shape(Reader& reader, std::size_t& size) {
  const std::uint64_t rank = reader.word();
  if (rank >= max_rank) refuse_data("must be undamaged", std::to_string(rank) + " for its number of axes");
  std::vector<std::int64_t> shape(rank);
  std::uint64_t bytes = sizeof(Moments);
  for (std::int64_t& extent : shape) {
    extent = static_cast<std::int64_t>(reader.word());
    if (extent < 0 || __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes)) {
      refuse_data("must be undamaged", std::to_string(extent) + " for one of its extents");
    }
  }
  size = bytes;
  return shape;
}

}  // namespace

nb::bytes to_bytes(const MomentsArray& moments) {
  std::string bytes(mark);
  bytes.reserve(mark.size() + 8 * (3 + moments.shape.size() + fields.size() * moments.values.size()));
  put(bytes, version);
  put(bytes, moments.shape.size());
  for (const std::int64_t extent : moments.shape) put(bytes, static_cast<std::uint64_t>(extent));
  for (const Moments& m : moments.values) {
    for (const auto field : fields) put(bytes, std::bit_cast<std::uint64_t>(m.*field));
  }
  put(bytes, checksum(bytes));
  return nb::bytes(bytes.data(), bytes.size());
}

MomentsArray from_bytes(const nb::bytes& data) {
  const std::string_view bytes(data.c_str(), data.size());
  if (!bytes.starts_with(mark)) {
    refuse_data("must be what to_bytes made", std::to_string(bytes.size()) + " bytes of something else");
  }
  Reader reader(bytes);
  check_version(reader.word());
  std::size_t size = 0;
  MomentsArray moments{.shape = read_shape(reader, size), .values = {}};
  if (size > reader.left() || reader.left() - size != 8) {
    const std::string expected = std::to_string(size) + " for shape " + shape_text(moments.shape);
    const std::size_t behind = reader.left() < 8 ? 0 : reader.left() - 8;
    refuse_data(size > behind ? "must be complete" : "must end where to_bytes ended",
                std::to_string(behind) + " bytes of values, not " + expected);
  }
  const std::uint64_t sum = checksum(bytes.substr(0, bytes.size() - 8));
  moments.values.resize(size / sizeof(Moments));
  for (Moments& m : moments.values) {
    for (const auto field : fields) m.*field = reader.number();
  }
  if (reader.word() != sum) refuse_data("must be undamaged", "a checksum that does not fit");
  return checked(std::move(moments));
}

}  // namespace normkit::python
