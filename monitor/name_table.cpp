#include "monitor/name_table.h"

namespace sluice::monitor {
namespace {

template <class Map, class Key>
core::ListenerId find(const Map& map, const Key& key) {
  auto found = map.find(key);
  return found == map.end() ? 0 : found->second;
}

}  // namespace

const Name* NameTable::by_listener(core::ListenerId id) const {
  auto found = names_.find(id);
  return found == names_.end() ? nullptr : &found->second;
}

core::ListenerId NameTable::by_file(const shm::UnixKey& key, uint64_t netns, int type) const {
  core::ListenerId id = find(files_, std::pair{key.device, key.inode});
  const Name* n = by_listener(id);
  return n != nullptr && n->netns == netns && n->type == type ? id : 0;
}

core::ListenerId NameTable::by_bytes(const std::string& abstract, uint64_t netns, int type) const {
  return find(abstract_, std::tuple{netns, type, abstract});
}

const Name* NameTable::by_key(const shm::UnixKey& key) const {
  if (key.device != shm::kAbstractDevice) return by_listener(find(files_, std::pair{key.device, key.inode}));
  for (const auto& [id, name] : names_)
    if (name.key == key) return &name;
  return nullptr;
}

shm::UnixKey NameTable::key_for(const std::string& abstract, uint64_t netns, int type) {
  if (const Name* n = by_listener(by_bytes(abstract, netns, type))) return n->key;
  uint32_t hash = shm::hash_of_name(abstract.data(), abstract.size());
  return {shm::kAbstractDevice, uint64_t{next_serial_++} << 32 | hash};
}

void NameTable::put(core::ListenerId id, Name name) {
  if (name.key.device == shm::kAbstractDevice)
    abstract_[{name.netns, name.type, name.bytes}] = id;
  else
    files_[{name.key.device, name.key.inode}] = id;
  names_[id] = std::move(name);
}

void NameTable::forget(core::ListenerId id) {
  auto found = names_.find(id);
  if (found == names_.end()) return;
  std::erase_if(abstract_, [&](const auto& entry) { return entry.second == id; });
  std::erase_if(files_, [&](const auto& entry) { return entry.second == id; });
  names_.erase(found);
}

}  // namespace sluice::monitor
