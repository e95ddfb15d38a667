#include <nanobind/operators.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "arrays.h"
#include "state.h"
#include "state_docstrings.h"

namespace normkit::python {
namespace {

using nb::literals::operator""_a;

/// In memory, an array of Moments is an array of doubles with one axis more.
constexpr std::int64_t fields = 5;
static_assert(sizeof(Moments) == fields * sizeof(double) && offsetof(Moments, max) == 4 * sizeof(double));

std::string number_text(double value) { return nb::str(nb::float_(value)).c_str(); }

MomentsArray from_fields(nb::handle count, nb::handle mean, nb::handle m2, nb::handle min, nb::handle max) {
  const nb::module_ numpy = nb::module_::import_("numpy");
  const nb::float_ unknown(std::numeric_limits<double>::quiet_NaN());  // survives every merge
  nb::list given;
  for (nb::handle field : {count, mean, m2, min, max}) given.append(field.is_none() ? nb::handle(unknown) : field);
  const nb::object stacked =
      numpy.attr("stack")(numpy.attr("broadcast_arrays")(*given), "axis"_a = -1, "dtype"_a = "float64");
  const nb::object dense = numpy.attr("ascontiguousarray")(stacked);
  TensorView table;
  Queue queue;
  const Input input({"Moments", "mean"}, dense, table, queue);
  const auto* first = static_cast<const Moments*>(table.data);
  return checked(
      {.shape = {table.shape, table.shape + table.rank - 1}, .values = {first, first + table.size() / fields}});
}

/// One field of all values: a read-only array over the memory of `self`.
nb::object field_of(nb::handle self, double Moments::* field) {
  auto& moments = nb::cast<MomentsArray&>(self);
  static Moments empty;  // an address for arrays without elements
  Moments* first = moments.values.empty() ? &empty : moments.values.data();
  TensorView values = view(&(first->*field), DType::float64, moments.shape);
  for (int axis = 0; axis < values.rank; ++axis) values.strides[axis] *= fields;
  return numpy_view(values, self, /*writeable=*/false);
}

MomentsArray merged(const MomentsArray& a, const MomentsArray& b) {
  if (a.shape != b.shape) {
    refuse(PyExc_ValueError, {"Moments.merge", "other"}, "must have the shape of self, " + shape_text(a.shape),
           shape_text(b.shape));
  }
  MomentsArray moments = a;
  for (std::size_t i = 0; i < a.values.size(); ++i) moments.values[i] = merge(a.values[i], b.values[i]);
  return moments;
}

bool equal(const MomentsArray& a, const MomentsArray& b) {
  const auto same = [](double u, double v) { return u == v || (std::isnan(u) && std::isnan(v)); };
  return a.shape == b.shape &&
         std::equal(a.values.begin(), a.values.end(), b.values.begin(), [&](const Moments& m, const Moments& n) {
           return same(m.count, n.count) && same(m.mean, n.mean) && same(m.m2, n.m2) && same(m.min, n.min) &&
                  same(m.max, n.max);
         });
}

/// Equal hashes for what is equal: one NaN stands for all of them, and 0 for -0.
Py_hash_t hash(const MomentsArray& moments) {
  std::vector<double> values;
  for (const Moments& m : moments.values) {
    for (const double value : {m.count, m.mean, m.m2, m.min, m.max}) {
      values.push_back(std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value == 0 ? 0.0 : value);
    }
  }
  return nb::hash(
      nb::make_tuple(shape_text(moments.shape).c_str(), nb::bytes(values.data(), values.size() * sizeof(double))));
}

nb::object variances(const MomentsArray& moments, double ddof, bool root) {
  TensorView results;
  nb::object array = numpy_new(DType::float64, moments.shape, results);
  std::transform(moments.values.begin(), moments.values.end(), static_cast<double*>(results.data),
                 [&](const Moments& m) { return root ? std::sqrt(m.variance(ddof)) : m.variance(ddof); });
  return array;
}

nb::object to_text(nb::handle self) {
  return nb::str("Moments(count={!r}, mean={!r}, m2={!r}, min={!r}, max={!r})")
      .attr("format")(self.attr("count"), self.attr("mean"), self.attr("m2"), self.attr("min"), self.attr("max"));
}

}  // namespace

MomentsArray checked(MomentsArray moments) {
  for (Moments& m : moments.values) {
    if (!(m.count >= 0) || std::isinf(m.count)) {
      refuse(PyExc_ValueError, {"Moments", "count"}, "must be finite and not negative", number_text(m.count));
    }
    if (m.count == 0) {
      m = Moments{};  // whatever has been said of nothing
      continue;
    }
    if (m.m2 < 0) refuse(PyExc_ValueError, {"Moments", "m2"}, "must not be negative", number_text(m.m2));
    if (m.min > m.max) {
      refuse(PyExc_ValueError, {"Moments", "min"}, "must not exceed max",
             number_text(m.min) + " > " + number_text(m.max));
    }
  }
  return moments;
}

void bind_moments(nb::module_& module) {
  nb::class_<MomentsArray> moments(module, "Moments", docs::moments);
  moments
      .def(
          "__init__",
          [](MomentsArray* self, nb::handle count, nb::handle mean, nb::handle m2, nb::handle min, nb::handle max) {
            new (self) MomentsArray(from_fields(count, mean, m2, min, max));
          },
          "count"_a, "mean"_a, "m2"_a, "min"_a = nb::none(), "max"_a = nb::none(),
          nb::sig("def __init__(self, count: numpy.typing.ArrayLike, mean: numpy.typing.ArrayLike, "
                  "m2: numpy.typing.ArrayLike, min: numpy.typing.ArrayLike | None = None, "
                  "max: numpy.typing.ArrayLike | None = None) -> None"))
      .def("merge", &merged, "other"_a, docs::moments_merge)
      .def("__add__", &merged, "other"_a, nb::is_operator())
      .def(
          "var", [](const MomentsArray& self, double ddof) { return variances(self, ddof, false); }, "ddof"_a = 0.0,
          docs::moments_var, nb::sig("def var(self, ddof: float = 0.0) -> numpy.typing.NDArray[numpy.float64]"))
      .def(
          "std", [](const MomentsArray& self, double ddof) { return variances(self, ddof, true); }, "ddof"_a = 0.0,
          docs::moments_std, nb::sig("def std(self, ddof: float = 0.0) -> numpy.typing.NDArray[numpy.float64]"))
      .def("__eq__", &equal, nb::is_operator(), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__repr__", &to_text, nb::sig("def __repr__(self) -> str"))
      .def("__hash__", &hash)
      .def("to_bytes", &to_bytes, docs::moments_to_bytes)
      .def_static("from_bytes", &from_bytes, "data"_a, docs::moments_from_bytes)
      .def("__getstate__", &to_bytes)
      .def("__setstate__",
           [](MomentsArray& self, const nb::bytes& data) { new (&self) MomentsArray(from_bytes(data)); });

  const auto define = [&](const char* name, double Moments::* field, const char* doc) {
    moments.def_prop_ro(
        name, [field](nb::handle self) { return field_of(self, field); }, doc,
        nb::sig((std::string("def ") + name + "(self) -> numpy.typing.NDArray[numpy.float64]").c_str()));
  };
  define("count", &Moments::count, "How many values there are; this and the other fields: read-only float64 views.");
  define("mean", &Moments::mean, "Their mean.");
  define("m2", &Moments::m2, "The sum of their squared deviations from the mean.");
  define("min", &Moments::min, "The smallest of them, NaN where it is not known.");
  define("max", &Moments::max, "The largest of them, NaN where it is not known.");
}

}  // namespace normkit::python
