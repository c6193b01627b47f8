// In place of Tilera's header: as much of it as tilera/tilegx/tmc.h uses, with a layout of headers of our own.
#pragma once

#define UDN0_DEMUX_TAG 0
#define UDN1_DEMUX_TAG 1
#define UDN2_DEMUX_TAG 2
#define UDN3_DEMUX_TAG 3

union DynamicHeader {
  struct {
    unsigned long length : 8;
    unsigned long demux : 2;
    unsigned long cpu : 54;
  } bits;
  unsigned long word;
};

inline DynamicHeader tmc_udn_header_from_cpu(int cpu) {
  DynamicHeader header{};
  header.bits.cpu = static_cast<unsigned long>(cpu);
  return header;
}
