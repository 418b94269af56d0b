// Makes a new mongod a replica set of one member and gives it its users; for mongosh, connected over
// the loopback of the mongod itself. Again is as good as once.
//
// The database has no password to begin with: as long as there is no user, it takes the first one
// from its own loopback and from nowhere else.

const folder = process.env.MONGOD_SECRETS;
const host = process.env.MONGOD_HOST;
const admin = db.getSiblingDB('admin');
const WRONG_CREDENTIALS = 18;
const PRIMARY_WAIT_MAX_S = 60;

const password = (user) => fs.readFileSync(`${folder}/${user}.password`, 'utf8').trim();

function rootLogsIn() {
  try {
    return admin.auth('root', password('root')).ok === 1;
  } catch (error) {
    if (error.code === WRONG_CREDENTIALS) return false;
    throw error;
  }
}

function awaitPrimary() {
  for (let s = 0; s < PRIMARY_WAIT_MAX_S; s += 1) {
    if (db.hello().isWritablePrimary) return;
    sleep(1000);
  }
  throw new Error(`mongod is no primary after ${PRIMARY_WAIT_MAX_S} s`);
}

function put(user, roles) {
  const settings = { pwd: password(user), roles, mechanisms: ['SCRAM-SHA-256'] };
  if (admin.getUser(user) === null) {
    admin.createUser({ user, ...settings });
  } else {
    admin.updateUser(user, settings);
  }
}

if (!rootLogsIn()) {
  try {
    rs.initiate({ _id: 'rs0', members: [{ _id: 0, host }] });
  } catch (error) {
    if (error.codeName !== 'AlreadyInitialized') throw error;
  }
  awaitPrimary();
  admin.createUser({
    user: 'root',
    pwd: password('root'),
    roles: ['root'],
    mechanisms: ['SCRAM-SHA-256'],
  });
  admin.auth('root', password('root'));
}
awaitPrimary();
// One writes the views, the other only reads them; neither sees another database.
put('projector', [{ role: 'readWrite', db: 'roster' }]);
put('query-api', [{ role: 'read', db: 'roster' }]);
// A further service has a database of its own.
for (const file of fs.readdirSync(folder)) {
  const service = file.match(/^([a-z][a-z0-9]*)-service\.password$/);
  if (service) put(`${service[1]}-service`, [{ role: 'readWrite', db: service[1] }]);
}
print('the replica set and its users are there');
