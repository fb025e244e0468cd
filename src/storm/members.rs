//! The check of presence channels at the end of a storm: every node has to list exactly the members
//! that are connected. A member too many is a ghost, one too few is absent.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error_text::without_number;
use crate::plan::StormPlan;
use crate::response::ApiResponse;
use crate::shared::SharedState;
use crate::target::PresenceMember;

/// The interval at which the lists that were wrong are read again.
const AGAIN: Duration = Duration::from_millis(100);
/// The time limit of each step of a request.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// The members that the nodes list, compared with those that are connected.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemberFigures {
    /// Nodes that took a connection. The others are down, and have no say.
    pub nodes: usize,
    /// Members that are listed and not connected, summed over nodes and channels.
    pub ghosts: usize,
    /// Members that are connected and not listed.
    pub absent: usize,
    /// Lists that a node did not give.
    pub unanswered: usize,
    /// Seconds until all lists were right, or until the check gave up.
    pub settled_s: f64,
}

impl MemberFigures {
    /// Whether at least one node answered, and every list was right.
    pub(crate) const fn are_right(&self) -> bool {
        self.nodes > 0 && self.ghosts + self.absent + self.unanswered == 0
    }
}

/// Reads the lists of all channels from all nodes, and reads those that are wrong again until all
/// are right or the patience is over.
pub(crate) fn check(plan: &StormPlan, shared: &SharedState, patience: Duration) -> MemberFigures {
    let began = Instant::now();
    let reachable = |node: &SocketAddr| TcpStream::connect_timeout(node, STEP_TIMEOUT).is_ok();
    let nodes: Vec<_> = plan.target.addresses().iter().copied().filter(reachable).collect();
    let lists = nodes.iter().flat_map(|node| (0..plan.channels).map(|channel| (*node, channel)));
    let mut wrong: Vec<_> = lists.collect();
    loop {
        let mut figures = MemberFigures { nodes: nodes.len(), ..MemberFigures::default() };
        wrong.retain(|(node, channel)| !figures.compare(plan, shared, *node, *channel));
        figures.settled_s = began.elapsed().as_secs_f64();
        if wrong.is_empty() || began.elapsed() > patience {
            return figures;
        }
        thread::sleep(AGAIN);
    }
}

impl MemberFigures {
    /// Adds the faults of one list. Returns whether it has none.
    fn compare(
        &mut self,
        plan: &StormPlan,
        shared: &SharedState,
        node: SocketAddr,
        channel: u32,
    ) -> bool {
        let Ok(listed) = listed(plan, node, channel)
            .inspect_err(|error| shared.problem(format!("members: {}", without_number(error))))
        else {
            self.unanswered += 1;
            return false;
        };
        let connected = connected(plan, shared, channel);
        let (ghosts, absent) =
            (listed.difference(&connected).count(), connected.difference(&listed).count());
        self.ghosts += ghosts;
        self.absent += absent;
        ghosts + absent == 0
    }
}

/// The ids of the members of a channel that are connected.
fn connected(plan: &StormPlan, shared: &SharedState, channel: u32) -> BTreeSet<String> {
    let indices = (channel..plan.connections).step_by(plan.channels as usize);
    let user =
        |index| shared.cuts_of(index).map(|cuts| PresenceMember { index, cuts, info: 0 }.user_id());
    indices.filter_map(user).collect()
}

/// The response of `GET /channels/{channel}/users`.
#[derive(Deserialize)]
struct Users {
    users: Vec<User>,
}

#[derive(Deserialize)]
struct User {
    id: String,
}

/// The ids of the members of a channel by the word of a node.
fn listed(plan: &StormPlan, node: SocketAddr, channel: u32) -> io::Result<BTreeSet<String>> {
    let mut stream = TcpStream::connect_timeout(&node, STEP_TIMEOUT)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    stream.write_all(plan.target.users(&plan.channel(channel)).as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let response = ApiResponse::parse(&bytes, SystemTime::now())
        .ok_or_else(|| io::Error::other(format!("{node} ended its response early")))?;
    if response.status != 200 {
        return Err(io::Error::other(format!("{node} answered {}", response.status)));
    }
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    let users: Users = serde_json::from_slice(&bytes[head..response.len])
        .map_err(|error| io::Error::other(format!("{node} gave no list of users: {error}")))?;
    Ok(users.users.into_iter().map(|user| user.id).collect())
}
