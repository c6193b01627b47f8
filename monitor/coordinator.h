// The coordinator: its agents, and the loop that gives each of them its turn.
#pragma once

#include <memory>
#include <string>

#include "monitor/acceptor.h"
#include "monitor/executor.h"
#include "monitor/lifetime.h"
#include "monitor/packets.h"
#include "monitor/patience.h"
#include "monitor/policing.h"
#include "monitor/poller.h"
#include "monitor/reaper.h"
#include "monitor/region_list.h"
#include "monitor/socket_list.h"
#include "monitor/status.h"
#include "monitor/tickets.h"

namespace sluice::monitor {

class Coordinator {
 public:
  explicit Coordinator(const Options& options);

  // Everything up to a listening socket. Returns what went wrong, or empty.
  std::string start();
  // Until told to stop.
  void run();

 private:
  std::unique_ptr<Transport> create_transport();
  std::string catch_signals();
  void lend_ports();
  bool stays_on_cpu() const;  // else errno says why
  TextService::Sources texts();

  bool look();
  bool bury();
  void serve_sockets(int timeout_ms);
  void on_signal();
  void tell_time();
  void on_event(Source source, uint32_t id, uint32_t events);
  void sleep();
  int timeout_ms();

  Options options_;
  core::CoordinatorCore& core_;
  Events events_;
  Clients clients_;
  Post post_{events_, clients_};
  DirectoryRegion directory_;
  Watcher watcher_{events_};
  PairRegions pairs_;
  Ledger ledger_;
  NameTable names_;
  Tickets tickets_{options_, events_, clients_, core_, post_, pairs_};
  Executor executor_{core_, clients_, post_, directory_, watcher_, names_, pairs_};
  Policing policing_{options_, core_, directory_};
  std::unique_ptr<Transport> transport_;
  Registrar registrar_{options_, events_, clients_, core_, post_, directory_, pairs_};
  Reaper reaper_{events_, clients_, core_, pairs_, tickets_, watcher_, ledger_};
  Status status_{options_, clients_, core_, post_, pairs_, tickets_, ledger_, policing_};
  SocketList sockets_{clients_, core_, pairs_, names_};
  RegionList region_list_{options_, core_, directory_, pairs_, tickets_};
  TextService texts_{post_, texts()};
  NameService name_service_{clients_, core_, post_, names_};
  Packets packets_{core_, clients_, post_, registrar_, tickets_, name_service_, texts_};
  Acceptor acceptor_{events_, clients_};
  Descriptor signals_;
  Poller poller_;
  Patience patience_;
  Lifetime lifetime_;
  uint32_t looks_ = 0;
  bool stopping_ = false;
};

}  // namespace sluice::monitor
