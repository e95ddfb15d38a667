// The part of DLPack's C ABI that the door uses. Layouts and names follow dlpack.h, version 1.3:
// https://github.com/dmlc/dlpack/blob/v1.3/include/dlpack/dlpack.h
#pragma once

#include <cstdint>

namespace normkit::python::dlpack {

struct Version {
  std::uint32_t major, minor;
};
/// A change of the major version changes the layout of what follows; a change of the minor one does not.
inline constexpr Version version = {1, 3};

enum DeviceType : std::int32_t { cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };
enum TypeCode : std::uint8_t { floating = 2, brain_floating = 4, boolean = 6 };

struct Device {
  std::int32_t type, id;
};

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;  // NULL where there are no elements
  Device device;
  std::int32_t rank;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; before version 1.2 NULL meant dense in C order
  std::uint64_t byte_offset;
};

/// What a capsule named "dltensor" holds.
struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};

inline constexpr std::uint64_t read_only = 1, is_copied = 2;

/// What a capsule named "dltensor_versioned" holds.
struct ManagedTensorVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedTensorVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

/// The function table in the capsule `type(array).__dlpack_c_exchange_api__`, named "dlpack_exchange_api". Functions
/// return 0, or -1 with a Python exception set.
struct ExchangeApi {
  Version version;
  ExchangeApi* previous;
  int (*allocate)(Tensor* prototype, ManagedTensorVersioned** out, void* error_context,
                  void (*set_error)(void* error_context, const char* kind, const char* message));
  int (*export_managed)(void* object, ManagedTensorVersioned** out);
  int (*import_managed)(ManagedTensorVersioned* tensor, void** out);
  int (*view)(void* object, Tensor* out);  // borrows; NULL where the library has no such thing
  int (*current_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};

}  // namespace normkit::python::dlpack
