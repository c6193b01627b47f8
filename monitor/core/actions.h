// What the coordinator's brain wants done. `sluiced`, tests and the NoC carry it out.
#pragma once

#include <string_view>

#include "monitor/core/address.h"
#include "shm/layout.h"

namespace sluice::monitor::core {

using shm::DomainId;
using ListenerId = uint32_t;

class Actions {
 public:
  // A message for the reply ring of a present domain.
  virtual void reply(DomainId to, const shm::Message& message) = 0;
  // `to` may no longer connect to `listener` without asking.
  virtual void revoke(DomainId to, ListenerId listener) = 0;
  // A domain that shares regions with `to` is dead. set_alive has said so before.
  virtual void gone(DomainId to, DomainId dead) = 0;
  virtual void ring(DomainId domain) = 0;
  // `peer` shares no memory with `to`, nor with those forked from it, under this generation, though it was asked to.
  virtual void unmet(DomainId to, DomainId peer, uint32_t generation) = 0;
  // `to` may find an idle acceptor for a connection that waits at `listener`.
  virtual void reconsider(DomainId to, ListenerId listener) = 0;

  // The directory's bitmaps.
  virtual void set_port(uint16_t port, bool listened) = 0;
  virtual void set_name(uint32_t name_bit, bool listened) = 0;
  virtual void set_alive(DomainId domain, bool alive) = 0;
  // What is looked at after this returns is newer than this (a full fence).
  virtual void set_waited(ListenerId listener, bool waited) = 0;

  // Nobody listens under this name any more.
  virtual void forget_name(ListenerId listener) = 0;

  // Start or stop waiting for the end of a process that has not registered with this
  // coordinator; when it ends, or has ended, CoordinatorCore::remove(domain).
  virtual void watch(DomainId domain, int32_t pid) = 0;
  virtual void unwatch(DomainId domain) = 0;

  // Whether a thread of `domain` sleeps until a connection comes to `listener`: 0, or the number of
  // this sleep, which is another for the next one.
  virtual uint32_t sleeps_at(DomainId domain, ListenerId listener) = 0;
  // Whether the kernel would let `domain` listen there: privileged ports, policy.
  virtual bool may_listen(DomainId domain, const Address& address, uint16_t port) = 0;

  // The path of what a domain runs; empty: not known. Of a listener of AF_UNIX: its name as bound.
  virtual std::string_view program_of(DomainId domain) = 0;
  virtual std::string_view name_of(ListenerId listener) = 0;
  // What a user has now: connections that its processes have begun, bytes of memory that they write to others.
  virtual uint64_t connections_of(uint32_t uid) = 0;
  virtual uint64_t memory_of(uint32_t uid) = 0;

 protected:
  ~Actions() = default;
};

}  // namespace sluice::monitor::core
