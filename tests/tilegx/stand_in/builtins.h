// In place of what GCC for TILE-Gx knows by itself, so that another compiler can look at code that uses it.
#pragma once

extern "C" {
void __tile_udn_send(unsigned long long word);
unsigned long long __tile_udn0_receive();
unsigned long long __tile_udn1_receive();
unsigned long long __tile_udn2_receive();
unsigned long long __tile_udn3_receive();
unsigned long long __insn_mfspr(unsigned long long number);
}
