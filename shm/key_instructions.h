// Machine instructions that change what a thread may do to memory with a protection key: WRPKRU (0f 01 ef) and XRSTOR
// (0f ae /5 with an operand in memory; Intel SDM, volume 2). Found wherever the bytes are, as a jump may go into the middle of
// another instruction.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::shm {

enum class KeyInstruction { kNone, kWrpkru, kXrstor };

inline constexpr std::size_t kKeyInstructionBytes = 3;  // of one, as far as it is looked at

// What stands at `code`, of which kKeyInstructionBytes are there.
inline KeyInstruction key_instruction_at(const std::uint8_t* code) {
  if (code[0] != 0x0f) return KeyInstruction::kNone;
  if (code[1] == 0x01 && code[2] == 0xef) return KeyInstruction::kWrpkru;
  bool xrstor = code[1] == 0xae && (code[2] & 0x38) == 0x28 && code[2] < 0xc0;
  return xrstor ? KeyInstruction::kXrstor : KeyInstruction::kNone;
}

// Calls found(offset, instruction) for each in code[0..n).
template <class F>
void find_key_instructions(const std::uint8_t* code, std::size_t n, F&& found) {
  for (std::size_t i = 0; i + kKeyInstructionBytes <= n; ++i) {
    const void* next = __builtin_memchr(code + i, 0x0f, n - kKeyInstructionBytes + 1 - i);
    if (next == nullptr) return;
    i = std::size_t(static_cast<const std::uint8_t*>(next) - code);
    if (KeyInstruction k = key_instruction_at(code + i); k != KeyInstruction::kNone) found(i, k);
  }
}

}  // namespace sluice::shm
