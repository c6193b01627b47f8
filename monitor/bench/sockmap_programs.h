// Two BPF programs that carry what one socket of a loopback connection sends straight to the other's
// receive queue, and the map of sockets between them. Written as instructions: compiling them would ask for
// clang where Sluice is built, for forty instructions.
#pragma once

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <sys/socket.h>

#include <cstdint>
#include <vector>

namespace sluice::monitor::bench {

// How the map knows a socket. Addresses are in network byte order, ports in the host's: a context has the remote
// one in network byte order, of 32 bits.
struct SocketKey {
  uint32_t local_ip4, remote_ip4, local_port, remote_port;
};

constexpr uint32_t kMostSockets = 65536;

namespace bpf {

using Program = std::vector<bpf_insn>;

constexpr bpf_insn move(uint8_t to, uint8_t from) { return {BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0}; }
constexpr bpf_insn set(uint8_t to, int32_t value) { return {BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value}; }
constexpr bpf_insn add(uint8_t to, int32_t value) { return {BPF_ALU64 | BPF_ADD | BPF_K, to, 0, 0, value}; }
constexpr bpf_insn shift_right(uint8_t to, int32_t bits) { return {BPF_ALU64 | BPF_RSH | BPF_K, to, 0, 0, bits}; }
constexpr bpf_insn host_order_32(uint8_t to) { return {BPF_ALU | BPF_END | BPF_TO_BE, to, 0, 0, 32}; }
constexpr bpf_insn load_32(uint8_t to, uint8_t from, size_t offset) {
  return {BPF_LDX | BPF_MEM | BPF_W, to, from, int16_t(offset), 0};
}
constexpr bpf_insn store_32(uint8_t to, int16_t offset, uint8_t from) {
  return {BPF_STX | BPF_MEM | BPF_W, to, from, offset, 0};
}
constexpr bpf_insn skip_if_equal(uint8_t reg, int32_t value, int16_t by) {
  return {BPF_JMP | BPF_JEQ | BPF_K, reg, 0, by, value};
}
constexpr bpf_insn skip_unless_equal(uint8_t reg, int32_t value, int16_t by) {
  return {BPF_JMP | BPF_JNE | BPF_K, reg, 0, by, value};
}
constexpr bpf_insn call(int32_t helper) { return {BPF_JMP | BPF_CALL, 0, 0, 0, helper}; }
constexpr bpf_insn leave() { return {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}; }

inline void append(Program& to, const Program& more) { to.insert(to.end(), more.begin(), more.end()); }

// The key on the stack, at r10 - 16, from the context in r6.
template <typename Context>
Program make_key(bool of_peer) {
  const int16_t base = -int16_t(sizeof(SocketKey));
  const int16_t own_ip = of_peer ? 4 : 0, own_port = of_peer ? 12 : 8;
  return {load_32(2, 6, offsetof(Context, local_ip4)),   store_32(10, base + own_ip, 2),
          load_32(2, 6, offsetof(Context, remote_ip4)),  store_32(10, base + 4 - own_ip, 2),
          load_32(2, 6, offsetof(Context, local_port)),  store_32(10, base + own_port, 2),
          load_32(2, 6, offsetof(Context, remote_port)), host_order_32(2),
          store_32(10, base + 20 - own_port, 2)};
}

// helper(context, map, key, flags)
inline Program call_with_key(int map, int32_t helper, int32_t flags) {
  return {move(1, 6),
          {BPF_LD | BPF_DW | BPF_IMM, 2, BPF_PSEUDO_MAP_FD, 0, map},
          {0, 0, 0, 0, 0},
          move(3, 10),
          add(3, -int32_t(sizeof(SocketKey))),
          set(4, flags),
          call(helper)};
}

}  // namespace bpf

// Both ends of an established connection from one address of 127.0.0.0/8 to another go into the map.
inline bpf::Program collecting_program(int map) {
  using namespace bpf;
  Program act = make_key<bpf_sock_ops>(false);
  append(act, call_with_key(map, BPF_FUNC_sock_hash_update, BPF_ANY));
  const int16_t rest = int16_t(act.size());
  Program program = {move(6, 1),
                     load_32(2, 6, offsetof(bpf_sock_ops, op)),
                     skip_if_equal(2, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, 1),
                     skip_unless_equal(2, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, int16_t(rest + 6)),
                     load_32(2, 6, offsetof(bpf_sock_ops, family)),
                     skip_unless_equal(2, AF_INET, int16_t(rest + 4)),
                     load_32(2, 6, offsetof(bpf_sock_ops, remote_ip4)),
                     host_order_32(2),
                     shift_right(2, 24),
                     skip_unless_equal(2, 127, rest)};
  append(program, act);
  append(program, {set(0, 1), leave()});
  return program;
}

// What is sent goes to the peer's receive queue, if the peer is in the map; else its usual way.
inline bpf::Program redirecting_program(int map) {
  using namespace bpf;
  Program program = {move(6, 1)};
  append(program, make_key<sk_msg_md>(true));
  append(program, call_with_key(map, BPF_FUNC_msg_redirect_hash, BPF_F_INGRESS));
  append(program, {set(0, SK_PASS), leave()});
  return program;
}

}  // namespace sluice::monitor::bench
