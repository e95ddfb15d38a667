// Where a call's work on a GPU is queued.
#include <normkit/cuda.h>

#include <optional>
#include <utility>

#include "dlpack.h"

namespace normkit::python {

bool names_stream(nb::handle library) {
  return nb::hasattr(library, "cuda") && nb::hasattr(library.attr("cuda"), "get_current_stream");
}

namespace {

void* as_pointer(nb::handle number) {
  return reinterpret_cast<void*>(nb::cast<std::uintptr_t>(number));  // NOLINT(performance-no-int-to-ptr): it was one
}

// The stream on which the array's library would queue its own work now, where it names one.
std::optional<void*> stream_of(nb::handle array, int device_index) {
  if (const Torch* torch = torch_of(array)) {
    void* stream = nullptr;
    if (torch->exchange != nullptr && torch->exchange->current_stream != nullptr) {
      if (torch->exchange->current_stream(dlpack::cuda, device_index, &stream) != 0) throw nb::python_error();
      return stream;
    }
    const nb::object current = nb::module_::import_("torch").attr("cuda").attr("current_stream")(array.attr("device"));
    return as_pointer(current.attr("cuda_stream"));
  }
  const nb::object module = namespace_of(array);
  if (!names_stream(module)) return std::nullopt;
  return as_pointer(module.attr("cuda").attr("get_current_stream")(device_index).attr("ptr"));
}

}  // namespace

// Where an error is, there is no memory, which is said anyway.
void reclaim_gpu_memory() {
  const nb::gil_scoped_acquire held;
  const nb::dict modules = nb::borrow<nb::dict>(PyImport_GetModuleDict());
  try {
    if (modules.contains("torch")) modules["torch"].attr("cuda").attr("empty_cache")();
    if (modules.contains("cupy")) modules["cupy"].attr("get_default_memory_pool")().attr("free_all_blocks")();
  } catch (nb::python_error& error) {
    error.discard_as_unraisable("normkit");
  }
}

Entered::Entered(nb::object manager) : manager_(std::move(manager)) { manager_.attr("__enter__")(); }
Entered::~Entered() {
  try {
    manager_.attr("__exit__")(nb::none(), nb::none(), nb::none());
  } catch (nb::python_error& error) {
    error.discard_as_unraisable("leaving a GPU");
  }
}

Entered on_gpu(nb::handle library, int index) { return Entered(library.attr("cuda").attr("Device")(index)); }

std::intptr_t Queue::join(nb::handle array, int device_index) {
  const std::optional<void*> own = stream_of(array, device_index);
  if (!is_known) {
    *this = {.is_known = true, .stream = own.value_or(nullptr), .waits = !own};
  } else if (!own || *own != stream) {
    waits = true;  // before the library may have the memory back
    if (own) {
      const CudaStream other(*own);
      const nb::gil_scoped_release released;
      wait_for_gpu(device_index);
    }
  }
  constexpr std::intptr_t ready = -1;
  constexpr std::intptr_t default_stream = 1;
  if (own) return ready;
  return stream == nullptr ? default_stream : reinterpret_cast<std::intptr_t>(stream);
}

}  // namespace normkit::python
