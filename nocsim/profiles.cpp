// The profiles, and where each of their constants comes from. `nocsim profiles` prints this.
#include <array>

#include "nocsim/config.h"

namespace nocsim {
namespace {

// BookSim 2's defaults are those of its booksim_config.cpp; "ISPASS'13" is Jiang et al., A Detailed
// and Flexible Cycle-Accurate Network-on-Chip Simulator.
constexpr Origin kBooksimOrigins[] = {
    {"mesh", "8x8", "ISPASS'13, the evaluated network"},
    {"order", "xy", "BookSim 2, dor_mesh: lowest dimension first"},
    {"vcs", "2", "ISPASS'13, 8x8 with 2 VCs"},
    {"depth", "16", "ISPASS'13, 16 flits for each VC"},
    {"router-stages", "3",
     "ISPASS'13, 3-stage router; BookSim 2 with routing_delay 0, and VC allocation, "
     "switch allocation and traversal of 1 each"},
    {"link-delay", "1", "BookSim 2, the latency of a mesh's channel"},
    {"turn-delay", "0", "BookSim 2 has none"},
    {"credit-delay", "0", "BookSim 2, credit_delay; the wire and one cycle are counted besides"},
    {"arbitration", "round-robin", "BookSim 2, vc_alloc_arb_type and sw_alloc_arb_type"},
    {"allocators", "separable, input first, 1 iteration",
     "BookSim 2 has it; alloc_iters 1. Its default is islip, which differs by which side is asked "
     "first"},
    {"vc-reuse", "tail", "BookSim 2, wait_for_tail_credit 0"},
    {"input speedup", "1", "BookSim 2, input_speedup, output_speedup, internal_speedup"},
    {"eject-depth", "16",
     "BookSim 2, the ejection buffer is as deep as the others and empties at once"},
    {"injection", "Bernoulli, unlimited source queue, one flit a cycle",
     "BookSim 2, injection_process and include_queuing 1"},
    {"packet", "4", "ISPASS'13, 4-flit packets"},
    {"queues", "4",
     "assumed: BookSim has no queues behind the ejection; used by tile programs only"},
    {"queue-words", "118", "assumed: as in udn"},
    {"stall-timeout", "10000", "assumed"},
};

constexpr Origin kUdnOrigins[] = {
    {"mesh", "6x6 (tilegx36), 9x8 (tilegx72)",
     "assumed from the number of tiles in the products' names"},
    {"order", "xy", "TILE-Gx: dimension order, X first, Y first selectable"},
    {"vcs", "1",
     "TILE-Gx: wormhole switching without virtual channels; networks are separate instead"},
    {"depth", "3", "assumed: 3-entry input FIFOs with credits"},
    {"router-stages", "1", "TILE-Gx: one cycle for each hop"},
    {"link-delay", "0", "TILE-Gx: one cycle for each hop, the wire included"},
    {"turn-delay", "1", "assumed: one more cycle where a packet turns"},
    {"credit-delay", "0",
     "assumed; the credit itself takes a cycle, so three entries suffice for a word a cycle"},
    {"arbitration", "round-robin", "TILE-Gx: each output serves its inputs in turn"},
    {"vc-reuse", "tail", "follows from wormhole switching"},
    {"eject-depth", "3", "Linux, arch/tile: a 3-word FIFO between switch and demux"},
    {"queues", "4", "TILE-Gx: udn0 to udn3"},
    {"queue-words", "118", "TILEPro: about 118 words; assumed to be the same on TILE-Gx"},
    {"queue-capacity", "shared", "assumed: whether the four share it or have it each is not known"},
    {"header", "1 word, removed by the demux", "TILE-Gx: tmc/udn.h, no tag word"},
    {"packet", "2", "a header and one word, the shortest message"},
    {"stall-timeout", "10000", "assumed: SPR_UDN_DEADLOCK_TIMEOUT is set by software"},
};

constexpr Config udn(int width, int height) {
  Config c;
  c.width = width;
  c.height = height;
  c.vcs = 1;
  c.depth = 3;
  c.router_stages = 1;
  c.link_delay = 0;
  c.turn_delay = 1;
  c.eject_depth = 3;
  return c;
}

constexpr std::array kProfiles = {
    Profile{"booksim", "the mesh that BookSim 2 was validated with", Config{}, 4, kBooksimOrigins},
    Profile{"udn", "the user dynamic network of a TILE-Gx36", udn(6, 6), 2, kUdnOrigins},
    Profile{"tilegx36", "the same, by the chip's name", udn(6, 6), 2, kUdnOrigins},
    Profile{"tilegx72", "the user dynamic network of a TILE-Gx72", udn(9, 8), 2, kUdnOrigins},
};

}  // namespace

const Profile* find_profile(std::string_view name) {
  for (const Profile& profile : kProfiles)
    if (profile.name == name) return &profile;
  return nullptr;
}

std::span<const Profile> all_profiles() { return kProfiles; }

}  // namespace nocsim
