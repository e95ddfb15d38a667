// Races between threads of the emulated device. Its kernels are compiled as for ThreadSanitizer, with a call before
// each access to memory, but the calls come here: what may happen at the same time on a GPU is simpler than on a host,
// and its threads are too many. The barriers of a block are all its threads', so two threads of one block are in order
// where a barrier is between them, and threads of two blocks never are. Two that are not, at one place, one of which
// writes, are a race. That a shuffle would order anything is not relied on.
#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>

#include "watch.h"

namespace normkit::detail::cuda {
namespace {

// Who was at two bytes last. Flags, of one byte, may be set by many at once; nothing else is as small, and written.
struct Access {
  static constexpr std::uint32_t nobody = ~0u, many = ~1u, sender = ~2u;
  std::uint32_t block = nobody, thread = nobody, interval = 0;
  const void* code = nullptr;

  // Whether this may happen at the same time as what the running thread of that block does.
  [[nodiscard]] bool beside(std::uint32_t that_block, std::uint32_t that_thread, std::uint32_t that_interval) const {
    if (block == nobody) return false;
    if (block != that_block) return true;
    if (thread == sender) return interval >= that_interval;
    return interval == that_interval && thread != that_thread;
  }
};
struct Place {
  std::uint64_t launch = 0;
  Access write, read;
};

class Races final : public Watcher {
 public:
  Races() { watcher = this; }

  void launch() override {
    ++launch_;
    fault_.clear();
    if (pages_.size() > most_pages) pages_.clear();
    page_ = nullptr;
  }

  void lend(const void* memory, std::size_t bytes) override {
    each(memory, bytes, [](Place& place) { place = {}; });
  }

  // All blocks of a cluster go through the same barriers: the sender's are those of the block that it sends to.
  void send(std::uint32_t to_block, const void* memory, std::size_t bytes) override {
    const Access sent{to_block, Access::sender, running_thread.interval, nullptr};
    each(memory, bytes, [&](Place& place) {
      expect_order(place.read, "read", sent, "wrote");
      expect_order(place.write, "wrote", sent, "wrote");
      place.write = sent;
    });
  }
  void arrive(const void* memory, std::size_t bytes) override {
    each(memory, bytes, [](Place& place) {
      if (place.write.thread == Access::sender && place.write.interval == running_thread.interval) place.write = {};
    });
  }

  void read(const void* memory, std::size_t bytes, const void* code) {
    if (is_private(memory)) return;
    const Access mine{running_thread.block, running_thread.thread, running_thread.interval, code};
    each(memory, bytes, [&](Place& place) {
      expect_order(place.write, "wrote", mine, "read");
      Access& before = place.read;
      if (before.block == Access::nobody || (before.block == mine.block && before.interval != mine.interval)) {
        before = mine;
      } else if (before.block != mine.block) {
        before.block = Access::many;
      } else if (before.thread != mine.thread) {
        before.thread = Access::many;
      }
    });
  }

  void write(const void* memory, std::size_t bytes, const void* code) {
    if (is_private(memory) || bytes < 2) return;
    const Access mine{running_thread.block, running_thread.thread, running_thread.interval, code};
    each(memory, bytes, [&](Place& place) {
      expect_order(place.read, "read", mine, "wrote");
      expect_order(place.write, "wrote", mine, "wrote");
      place.write = mine;
    });
  }

  [[nodiscard]] const char* fault() const override { return fault_.empty() ? nullptr : fault_.c_str(); }

 private:
  static constexpr std::size_t page_places = 2048, most_pages = 4096;
  using Page = std::array<Place, page_places>;

  static bool is_private(const void* memory) {
    const auto place = reinterpret_cast<std::uintptr_t>(memory);
    const auto stack = reinterpret_cast<std::uintptr_t>(running_thread.stack);
    return !running_thread.any || (place >= stack && place < stack + running_thread.stack_bytes);
  }

  template <class Visit>
  void each(const void* memory, std::size_t bytes, const Visit& visit) {
    const auto first = reinterpret_cast<std::uintptr_t>(memory);
    for (std::uintptr_t at = first / 2; at <= (first + bytes - 1) / 2 && bytes > 0; ++at) {
      if (page_ == nullptr || at / page_places != page_number_) find_page(at / page_places);
      Place& place = (*page_)[at % page_places];
      if (place.launch != launch_) place = {};
      place.launch = launch_;
      visit(place);
    }
  }

  void find_page(std::uintptr_t number) {
    const bool any = std::exchange(running_thread.any, false);  // this memory is not a thread's
    std::unique_ptr<Page>& page = pages_[number];
    if (page == nullptr) page = std::make_unique<Page>();
    running_thread.any = any;
    page_ = page.get();
    page_number_ = number;
  }

  void expect_order(const Access& before, const char* did, const Access& now, const char* does) {
    if (!before.beside(now.block, now.thread, now.interval) || !fault_.empty()) return;
    fault_ = "a race at one place: " + described(before) + " " + did + ", and " + described(now) + " " + does;
  }
  static std::string described(const Access& access) {
    if (access.thread == Access::sender) return "another block";
    const auto number = [](std::uint32_t n) { return n == Access::many ? "several" : std::to_string(n); };
    Dl_info of_code{};
    std::array<char, 32> at{};
    if (dladdr(access.code, &of_code) != 0) {
      (void)std::snprintf(at.data(), at.size(), " (addr2line: %#tx)",
                          static_cast<const char*>(access.code) - static_cast<const char*>(of_code.dli_fbase));
    }
    return "thread " + number(access.thread) + " of block " + number(access.block) + at.data();
  }

  std::uint64_t launch_ = 1;
  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages_;
  Page* page_ = nullptr;
  std::uintptr_t page_number_ = 0;
  std::string fault_;
};

Races races;  // NOLINT(bugprone-throwing-static-initialization): nothing could run without

void* allocated(std::size_t bytes) {
  void* memory = std::malloc(bytes > 0 ? bytes : 1);
  if (memory == nullptr) throw std::bad_alloc();
  // Another thread may have had it before: what keeps copies that are under way has no place among the device's memory.
  if (running_thread.any) races.lend(memory, bytes);
  return memory;
}

}  // namespace
}  // namespace normkit::detail::cuda

void* operator new(std::size_t bytes) { return normkit::detail::cuda::allocated(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// What the compiler calls.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
#define NORMKIT_ACCESSES(bytes, suffix)                                        \
  void __tsan_read##suffix(const void* p) {                                    \
    normkit::detail::cuda::races.read(p, bytes, __builtin_return_address(0));  \
  }                                                                            \
  void __tsan_write##suffix(const void* p) {                                   \
    normkit::detail::cuda::races.write(p, bytes, __builtin_return_address(0)); \
  }                                                                            \
  void __tsan_unaligned_read##suffix(const void* p) {                          \
    normkit::detail::cuda::races.read(p, bytes, __builtin_return_address(0));  \
  }                                                                            \
  void __tsan_unaligned_write##suffix(const void* p) {                         \
    normkit::detail::cuda::races.write(p, bytes, __builtin_return_address(0)); \
  }
extern "C" {
NORMKIT_ACCESSES(1, 1)
NORMKIT_ACCESSES(2, 2)
NORMKIT_ACCESSES(4, 4)
NORMKIT_ACCESSES(8, 8)
NORMKIT_ACCESSES(16, 16)
void __tsan_read_range(const void* p, std::size_t bytes) {
  normkit::detail::cuda::races.read(p, bytes, __builtin_return_address(0));
}
void __tsan_write_range(const void* p, std::size_t bytes) {
  normkit::detail::cuda::races.write(p, bytes, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(const void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(const void*, const void*) {}
void __tsan_vptr_read(const void*) {}
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
