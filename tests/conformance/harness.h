// A harness of our own for programs that must not link anything but libc: they run once on plain
// Linux and once under libsluice.so, and both runs have to agree.
//
// Every test runs in a forked child in its own process group, under a watchdog. A failed CHECK
// ends the test. Descriptors belong to the test's process and are closed by its end.
#pragma once

#include <errno.h>
#include <sys/types.h>

#include <concepts>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace conformance {

// Where the other end of a connection lives; see peer.h.
enum class Where { kSameProcess, kPeerConnects, kPeerAccepts };

struct Test {
  Test(const char* name, void (*body)());
  Test(const char* name, void (*body)(Where), bool in_same_process = true);  // one per Where
};

// A routine that exec'ed copies of this executable can run instead of the tests:
// spawn_program("name", {args}) runs it with these args.
struct Program {
  using Main = int (*)(const std::vector<std::string>& args);
  Program(const char* name, Main main);
};

// Ends the test (or a child of it) as failed. Usable in threads and forked children.
[[noreturn]] void fail(const char* file, int line, const std::string& what);

std::string errno_name(int error);

template <typename T>
std::string text_of(const T& value) {
  if constexpr (std::is_convertible_v<T, std::string_view>) {
    std::string_view text = value;
    return '"' + std::string(text.substr(0, 80)) + (text.size() > 80 ? "...\"" : "\"");
  } else if constexpr (std::is_pointer_v<T>) {
    return value ? "a pointer" : "null";
  } else {
    return std::to_string(value);
  }
}

template <typename T>
constexpr bool kComparesByValue =
    std::integral<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char>;

template <typename A, typename B>
void check_eq(const A& actual, const B& expected, const char* text, const char* file, int line) {
  int error = errno;
  bool equal;
  if constexpr (kComparesByValue<A> && kComparesByValue<B>)
    equal = std::cmp_equal(actual, expected);
  else
    equal = actual == expected;
  if (equal) return;
  std::string got = text_of(actual);
  if (got == "-1") got += " (" + errno_name(error) + ")";
  fail(file, line, std::string(text) + " is " + got + ", not " + text_of(expected));
}

template <typename T>
T check_ok(T result, const char* text, const char* file, int line) {
  if (result == static_cast<T>(-1)) fail(file, line, std::string(text) + ": " + errno_name(errno));
  return result;
}

template <typename T>
void check_errno(T result, int expected, const char* text, const char* file, int line) {
  int error = errno;
  if (result == static_cast<T>(-1) && error == expected) return;
  std::string got = result == static_cast<T>(-1) ? errno_name(error) : text_of(result);
  fail(file, line, std::string(text) + " gives " + got + ", not " + errno_name(expected));
}

// fork + exec of this very executable: a separate application that runs a Program. It inherits
// stdin, stdout, stderr and the descriptors in `kept`, nothing else.
pid_t spawn_program(const char* name, const std::vector<std::string>& args,
                    const std::vector<int>& kept = {});
// A forked child that runs `body` and exits 0, unless a CHECK fails in it.
pid_t in_child(const std::function<void()>& body);
// Exit status, or 128 + signal.
int wait_exit(pid_t pid);

int run_tests(int argc, char** argv);

}  // namespace conformance

#define SLUICE_JOIN2(a, b) a##b
#define SLUICE_JOIN(a, b) SLUICE_JOIN2(a, b)

#define TEST(name)                                                                                 \
  static void SLUICE_JOIN(test_, __LINE__)();                                                      \
  static conformance::Test SLUICE_JOIN(registered_, __LINE__)(name, SLUICE_JOIN(test_, __LINE__)); \
  static void SLUICE_JOIN(test_, __LINE__)()

// The body sees `where`.
#define TEST_EVERYWHERE(name)                                                                      \
  static void SLUICE_JOIN(test_, __LINE__)(conformance::Where);                                    \
  static conformance::Test SLUICE_JOIN(registered_, __LINE__)(name, SLUICE_JOIN(test_, __LINE__)); \
  static void SLUICE_JOIN(test_, __LINE__)([[maybe_unused]] conformance::Where where)

// The same for tests that make sense only when the peer is a program of its own.
#define TEST_ACROSS_PROCESSES(name)                                                               \
  static void SLUICE_JOIN(test_, __LINE__)(conformance::Where);                                   \
  static conformance::Test SLUICE_JOIN(registered_, __LINE__)(name, SLUICE_JOIN(test_, __LINE__), \
                                                              false);                             \
  static void SLUICE_JOIN(test_, __LINE__)([[maybe_unused]] conformance::Where where)

#define PROGRAM(name)                                                               \
  static int program_##name([[maybe_unused]] const std::vector<std::string>& args); \
  static conformance::Program registered_program_##name(#name, program_##name);     \
  static int program_##name([[maybe_unused]] const std::vector<std::string>& args)

#define CHECK_TRUE(...) \
  ((__VA_ARGS__) ? void() : conformance::fail(__FILE__, __LINE__, "not so: " #__VA_ARGS__))
#define CHECK_EQ(actual, expected) \
  conformance::check_eq(actual, expected, #actual, __FILE__, __LINE__)
// Yields the call's result, which must not be -1.
#define CHECK_OK(...) conformance::check_ok(__VA_ARGS__, #__VA_ARGS__, __FILE__, __LINE__)
#define CHECK_ERRNO(call, expected) \
  conformance::check_errno(call, expected, #call, __FILE__, __LINE__)
