//! Who the program is to the kernel: user, groups and capabilities, which each thread has for itself.

use memory::Addr;
use nix::libc;
use nix::unistd::{Gid, getegid, getgroups};
use protocol::Credentials;

use super::layout::SHARED_DATA_BYTES;
use super::{BlankChild, Program, RestoreError};
use crate::peer;

/// Offsets in the data: `struct __user_cap_header_struct`, two `__user_cap_data_struct`, groups.
const SETS: usize = 16;
const GROUPS: usize = 64;
/// Groups that there is room for, of the process and of a thread that has others.
const MAX_GROUPS: u64 = (SHARED_DATA_BYTES - GROUPS as u64) / 4;
const MAX_OTHER_GROUPS: usize = 512;

/// Ambient capabilities that a thread's operations have room for.
const MOST_AMBIENT: u32 = 8;

/// Capabilities that there are; more are refused by the kernel, without effect.
const CAPABILITIES: u32 = 41;

/// What a thread of the child has to do to become who it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Change {
    to: Credentials,
    /// Ids have to be taken on.
    ids: bool,
    /// Capabilities have to be set: they are not what the receiver has.
    capabilities: bool,
}

impl Change {
    /// From `ours` to `theirs`, if that is possible: nobody gets more than the receiver has.
    pub(super) fn between(ours: &Credentials, theirs: &Credentials) -> Result<Self, RestoreError> {
        const SET_GID: u64 = 1 << 6;
        const SET_UID: u64 = 1 << 7;
        let own_namespace = need_user_namespace(ours);
        let all_ids = |who: &Credentials| (who.user, who.group, who.other_users, who.other_groups);
        let other =
            all_ids(ours) != all_ids(theirs) || !are_same_groups(&ours.groups, &theirs.groups, own_namespace);
        let needed = if other { SET_GID | SET_UID } else { 0 };
        let excessive = (theirs.capabilities | theirs.permitted | theirs.ambient) & !ours.capabilities != 0;
        let too_many = theirs.groups.len() as u64 > MAX_GROUPS || theirs.ambient.count_ones() > MOST_AMBIENT;
        // Only to one of these a thread may go that has given up what it had.
        let [real, saved, for_files] = theirs.other_users;
        let is_strange = ![real, theirs.user, saved].contains(&for_files);
        if excessive || needed & !ours.capabilities != 0 || too_many || is_strange {
            return Err(refused(theirs));
        }
        let sets_are_ours = [theirs.capabilities, theirs.permitted, theirs.inheritable]
            == [ours.capabilities, ours.capabilities, ours.inheritable];
        // The first process of a user namespace has them all, and a program's PR_SET_KEEPCAPS would keep ours for it.
        let capabilities = own_namespace || other || !sets_are_ours;
        Ok(Self { to: theirs.clone(), ids: other, capabilities })
    }

    /// The same for a thread that is somebody else than its process.
    pub(super) fn of_thread(
        ours: &Credentials,
        process: &Credentials,
        theirs: &Credentials,
    ) -> Result<Self, RestoreError> {
        if theirs.bounding != process.bounding || theirs.groups.len() > MAX_OTHER_GROUPS {
            return Err(refused(theirs));
        }
        Self::between(ours, theirs)
    }

    /// What [`Self::apply`] refers to.
    fn data(&self) -> Vec<u8> {
        const VERSION_3: u32 = 0x2008_0522;
        let sets = [self.to.capabilities, self.to.permitted, self.to.inheritable];
        let [low, high] = [0, 32].map(|shift| sets.map(|set| half((set >> shift) & 0xffff_ffff)));
        let mut bytes = VERSION_3.to_le_bytes().to_vec();
        bytes.resize(SETS, 0);
        bytes.extend([low, high].as_flattened().iter().flat_map(|word| word.to_le_bytes()));
        bytes.resize(GROUPS, 0);
        bytes.extend(self.to.groups.iter().flat_map(|group| group.to_le_bytes()));
        bytes
    }

    /// Puts what [`Self::apply`] refers to where all threads can read it.
    pub(super) fn place_data(&self, child: &BlankChild) -> Result<(), RestoreError> {
        let at = child.layout().shared_data();
        for (offset, word) in (0..).step_by(4).zip(self.data().chunks_exact(4)) {
            let word = word.first_chunk().copied().map_or(0, u32::from_le_bytes);
            child.set_word(Addr(at.0 + offset), word)?;
        }
        Ok(())
    }

    /// Takes the credentials on, in the calling thread, which nobody else is.
    pub(super) fn apply_alone(&self, program: &mut Program) {
        let at = program.data(&self.data());
        self.apply(program, at);
    }

    /// Takes the credentials on, in the calling thread, with the data that is at `at`.
    pub(super) fn apply(&self, program: &mut Program, at: Addr) {
        const PR_CAP_AMBIENT: u64 = 47;
        const PR_CAP_AMBIENT_RAISE: u64 = 2;
        if self.ids {
            self.take_ids(program, at);
        }
        if self.capabilities {
            program.call(libc::SYS_capset, [at.0, at.0 + SETS as u64]);
        }
        for number in (0..u64::BITS).filter(|number| self.to.ambient >> number & 1 == 1) {
            program.call(libc::SYS_prctl, [PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number.into(), 0, 0]);
        }
    }

    /// Groups as long as that is permitted, users last; what is permitted stays for the capabilities that come behind.
    fn take_ids(&self, program: &mut Program, at: Addr) {
        const PR_GET_KEEPCAPS: u64 = 7;
        const PR_SET_KEEPCAPS: u64 = 8;
        let Credentials { user, group, other_users, other_groups, groups, .. } = &self.to;
        let before = program.call(libc::SYS_prctl, [PR_GET_KEEPCAPS, 0, 0, 0, 0]);
        program.call(libc::SYS_prctl, [PR_SET_KEEPCAPS, 1, 0, 0, 0]);
        let before = program.result(before);
        program.call(libc::SYS_setgroups, [groups.len() as u64, at.0 + GROUPS as u64]);
        let [real, saved, for_files] = other_groups.map(u64::from);
        program.call(libc::SYS_setresgid, [real, u64::from(*group), saved]);
        if for_files != u64::from(*group) {
            program.call(libc::SYS_setfsgid, [for_files]);
        }
        let [real, saved, for_files] = other_users.map(u64::from);
        program.call(libc::SYS_setresuid, [real, u64::from(*user), saved]);
        if for_files != u64::from(*user) {
            program.call(libc::SYS_setfsuid, [for_files]);
        }
        program.call_with(libc::SYS_prctl, [PR_SET_KEEPCAPS, 0, 0, 0, 0], &[(1, before)]);
    }

    /// Whether ids are taken on.
    pub(super) const fn is_of_ids(&self) -> bool {
        self.ids
    }
}

/// Has what `work` adds done by the child as its sender might do it, which is that user to everybody who looks: of
/// itself, it is root until it is let go.
pub(super) fn as_its_sender<T>(program: &mut Program, work: impl FnOnce(&mut Program) -> T) -> T {
    /// An id that stays what it is.
    const SAME: u64 = u64::MAX;
    let Some(sender) = peer::rights() else { return work(program) };
    let ours: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    let set_groups = |program: &mut Program, groups: &[u32]| {
        let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        let place = program.data(&bytes);
        program.call(libc::SYS_setgroups, [groups.len() as u64, place.0]);
    };
    set_groups(program, &sender.groups);
    program.call(libc::SYS_setresgid, [SAME, sender.group.into(), SAME]);
    // The last, and the first on the way back: capabilities go and come with it.
    program.call(libc::SYS_setresuid, [SAME, sender.user.into(), SAME]);
    let done = work(program);
    program.call(libc::SYS_setresuid, [SAME, 0, SAME]);
    program.call(libc::SYS_setresgid, [SAME, getegid().as_raw().into(), SAME]);
    set_groups(program, &ours);
    done
}

fn refused(theirs: &Credentials) -> RestoreError {
    let (user, group, capabilities) = (theirs.user, theirs.group, theirs.capabilities);
    RestoreError::Credentials { user, group, capabilities }
}

/// Gives up what a program may not have that this one starts; the threads that are made from here on inherit that.
pub(super) fn bound(program: &mut Program, theirs: &Credentials) {
    const PR_CAPBSET_DROP: u64 = 24;
    for number in (0..CAPABILITIES).filter(|number| theirs.bounding >> number & 1 == 0) {
        program.attempt(libc::SYS_prctl, [PR_CAPBSET_DROP, number.into(), 0, 0, 0]);
    }
}

/// Whether [`bound`] takes nothing from a child of a process with the credentials `ours`.
pub(super) const fn is_unbound(ours: &Credentials, theirs: &Credentials) -> bool {
    // The first process of a user namespace has them all.
    let child = if need_user_namespace(ours) { (1 << CAPABILITIES) - 1 } else { ours.bounding };
    child & !theirs.bounding == 0
}

/// Whether a process with these credentials can make namespaces only together with a user namespace.
pub(super) const fn need_user_namespace(ours: &Credentials) -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    ours.capabilities & SYS_ADMIN == 0
}

/// In a user namespace groups cannot be set, and those that came along are shown as the overflow group.
fn are_same_groups(ours: &[u32], theirs: &[u32], own_namespace: bool) -> bool {
    const OVERFLOW: u32 = 65534;
    let same = |(ours, theirs): (&u32, &u32)| ours == theirs || (own_namespace && *theirs == OVERFLOW);
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(same)
}

/// The lower half of a word that has nothing in its upper one.
fn half(word: u64) -> u32 {
    u32::try_from(word).unwrap_or(u32::MAX)
}

/// The receiver's own (proc(5), `/proc/self/status`).
pub(super) fn own() -> Result<Credentials, RestoreError> {
    let what = "the credentials of the receiver";
    let text =
        std::fs::read_to_string("/proc/self/status").map_err(|source| RestoreError::Host { what, source })?;
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let numbers = |name| line(name).split_whitespace().filter_map(|word| word.parse().ok());
    let ids = |name| {
        let mut all = numbers(name);
        [(); 4].map(|()| all.next().unwrap_or(u32::MAX))
    };
    let ([real_user, user, saved_user, file_user], [real_group, group, saved_group, file_group]) =
        (ids("Uid:"), ids("Gid:"));
    let set = |name| u64::from_str_radix(line(name).trim(), 16).unwrap_or(0);
    Ok(Credentials {
        user,
        group,
        other_users: [real_user, saved_user, file_user],
        other_groups: [real_group, saved_group, file_group],
        groups: numbers("Groups:").collect(),
        capabilities: set("CapEff:"),
        permitted: set("CapPrm:"),
        inheritable: set("CapInh:"),
        bounding: set("CapBnd:"),
        ambient: set("CapAmb:"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(user: u32, capabilities: u64) -> Credentials {
        let (other_users, other_groups) = ([user; 3], [user; 3]);
        let ids = Credentials { user, group: user, other_users, other_groups, ..Credentials::default() };
        Credentials { capabilities, permitted: capabilities, ..ids }
    }

    #[test]
    fn nobody_gets_more_than_the_receiver_has() {
        assert!(Change::between(&who(0, 0xff), &who(0, 0x1ff)).is_err());
        assert!(Change::between(&who(5, 0), &who(6, 0)).is_err());
        assert!(Change::between(&who(5, 0), &who(5, 0)).is_ok());
    }

    #[test]
    fn capabilities_are_set_unless_they_are_ours() {
        const ALL: u64 = 0x1ff_ffff;
        let set = |theirs| Change::between(&who(0, ALL), &theirs).map(|change| change.capabilities);
        assert!(matches!(set(who(0, ALL)), Ok(false)));
        assert!(matches!(set(who(0, 0xf)), Ok(true)));
        assert!(matches!(set(who(7, 0)), Ok(true)));
        assert!(matches!(set(who(7, 1)), Ok(true)));
    }

    #[test]
    fn what_can_be_taken_on_counts_as_well_as_what_is() {
        let dormant = Credentials { permitted: 0x100, ..who(5, 0) };
        assert!(Change::between(&who(5, 0), &dormant).is_err());
        let bold = Credentials { inheritable: 1, ..who(0, 0xff) };
        assert!(Change::between(&who(0, 0xff), &bold).is_ok_and(|change| change.capabilities));
    }

    #[test]
    fn what_a_user_namespace_brings_is_given_up() {
        let change = Change::between(&who(5, 0), &who(5, 0)).expect("the same user");
        assert!(!change.ids && change.capabilities);
    }

    #[test]
    fn ids_may_differ_but_for_a_stranger_among_those_for_files() {
        let ours = who(0, 0x1ff);
        let mixed = |other_users| Credentials { other_users, ..who(7, 0) };
        assert!(Change::between(&ours, &mixed([7, 0, 7])).is_ok_and(|change| change.ids));
        assert!(Change::between(&ours, &mixed([7, 0, 0])).is_ok());
        assert!(Change::between(&ours, &mixed([7, 0, 9])).is_err());
        let bound = Credentials { bounding: 1, ..who(7, 0) };
        assert!(Change::of_thread(&ours, &who(0, 0), &bound).is_err());
    }

    #[test]
    fn groups_that_a_user_namespace_has_hidden_count_as_those_that_came_along() {
        assert!(are_same_groups(&[4, 27], &[65534, 65534], true));
        assert!(!are_same_groups(&[4, 27], &[65534, 65534], false));
        assert!(!are_same_groups(&[4, 27], &[4], true));
    }
}
