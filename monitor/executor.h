// Carries out what the brain decides.
#pragma once

#include "monitor/core/coordinator_core.h"
#include "monitor/directory.h"
#include "monitor/listen_policy.h"
#include "monitor/name_table.h"
#include "monitor/pair_regions.h"
#include "monitor/post.h"
#include "monitor/watcher.h"

namespace sluice::monitor {

class Executor : public core::Actions {
 public:
  Executor(core::CoordinatorCore& core, Clients& clients, Post& post, DirectoryRegion& directory,
           Watcher& watcher, NameTable& names, const PairRegions& pairs)
      : core_(core), clients_(clients), post_(post), directory_(directory), watcher_(watcher), names_(names), pairs_(pairs) {}

  void reply(DomainId to, const shm::Message& message) override;
  void revoke(DomainId to, core::ListenerId listener) override;
  void gone(DomainId to, DomainId dead) override;
  void ring(DomainId domain) override;
  void unmet(DomainId to, DomainId peer, uint32_t generation) override;
  void reconsider(DomainId to, core::ListenerId listener) override;
  void set_port(uint16_t port, bool listened) override { directory_.set_port(port, listened); }
  void set_name(uint32_t name_bit, bool listened) override { directory_.set_name(name_bit, listened); }
  void forget_name(core::ListenerId listener) override { names_.forget(listener); }
  void set_alive(DomainId domain, bool alive) override { directory_.set_alive(domain, alive); }
  void set_waited(core::ListenerId listener, bool waited) override { directory_.set_waited(listener, waited); }
  void watch(DomainId domain, int32_t pid) override { watcher_.watch(domain, pid); }
  void unwatch(DomainId domain) override { watcher_.unwatch(domain); }
  uint32_t sleeps_at(DomainId domain, core::ListenerId listener) override;
  bool may_listen(DomainId domain, const core::Address& address, uint16_t port) override;
  std::string_view program_of(DomainId domain) override;
  std::string_view name_of(core::ListenerId listener) override;
  uint64_t connections_of(uint32_t uid) override;
  uint64_t memory_of(uint32_t uid) override;

 private:
  template <class Visit>
  void for_each_of(uint32_t uid, Visit visit) const {
    clients_.for_each([&](const Client& c) {
      if (c.stage == Stage::kWelcomed && core_.domain(c.domain).identity.uid == uid) visit(c);
    });
  }

  core::CoordinatorCore& core_;
  Clients& clients_;
  Post& post_;
  DirectoryRegion& directory_;
  Watcher& watcher_;
  NameTable& names_;
  const PairRegions& pairs_;
  ListenPolicy policy_;
};

}  // namespace sluice::monitor
