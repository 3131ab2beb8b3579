// share, within a function: element i of those that the S lanes loaded as part0, part1, …, one per lane and part.
let b{i} = subgroupBroadcast(part{i/S}, {i%S}u);
